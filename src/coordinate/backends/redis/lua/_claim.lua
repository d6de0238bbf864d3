-- Shared by scripts that compare with the registered claim. Not a script of its own.
--
-- Tokens are compared as decimal text: exact at any size, also for those of other stores.

local CORRUPT = 'CORRUPT the claim has no usable token'

-- Return the registered token, '0' where there is no claim, nil where there is one that cannot be read.
local function claimed_token(claim)
  local token = redis.call('HGET', claim, 'token')
  if token then
    return string.find(token, '^%d+$') and token
  end
  return redis.call('EXISTS', claim) == 0 and '0' or nil
end
