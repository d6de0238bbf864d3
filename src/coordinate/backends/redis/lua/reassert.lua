-- Restore leases that a failover or restart lost, for holders that still believe in them.
--
-- Only while new owners wait: afterwards, and on a server that nobody knew before, somebody else may believe, too.
--
-- KEYS: lease and token counter, for each grant
-- ARGV: nonce, token, ttl in ms, owner (JSON) and server time in us until when new owners wait, for each grant
-- Returns: for each grant that is not held (again): {its number from 1, 0 expired | -1 taken | -2 broken | a text if its keys
--          are unusable}; nothing for the others, which are nearly always all of them

local now = microseconds()

local function reassert(lease, counter, nonce, token, ttl, owner, until_)
  local held = redis.call('HMGET', lease, 'nonce', 'token', 'ttl')
  local last = redis.call('HMGET', counter, 'last', 'broken')
  if tonumber(until_) <= now then
    return 0
  elseif held[1] and held[1] ~= nonce and (tonumber(held[2]) or 0) >= tonumber(token) then
    return -1
  elseif (tonumber(last[2]) or 0) > tonumber(token) then
    return -2
  elseif (tonumber(last[1]) or 0) > tonumber(token) then
    -- Somebody was granted it since, and may have worked and gone already.
    return -1
  end
  -- A smaller token is a ghost: its owner had given it back or lost it, and this server never heard of that.
  redis.call('HSET', lease, 'nonce', nonce, 'token', token, 'ttl', ttl, 'owner', owner)
  redis.call('PEXPIRE', lease, ttl)
  keep_token(counter, token, tonumber(ttl))
end

local exceptions = {}
for i = 1, #KEYS, 2 do
  local a = (i - 1) / 2 * 5
  local good, answer = pcall(reassert, KEYS[i], KEYS[i + 1], unpack(ARGV, a + 1, a + 5))
  if not good then
    -- Redis 7 raises a table, earlier servers a text. One bad key must not cost the others theirs.
    answer = type(answer) == 'table' and answer.err or tostring(answer)
    local refusal = string.match(answer, 'READONLY.*') or string.match(answer, 'NOREPLICAS.*')
    if refusal then
      -- Not about this key: the server is no primary any more, or cut off from its replicas, and has written nothing.
      return redis.error_reply(refusal)
    end
  end
  if answer then
    exceptions[#exceptions + 1] = {(i + 1) / 2, answer}
  end
end
return exceptions
