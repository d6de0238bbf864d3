-- Extend many leases by the ttl they were granted for.
--
-- KEYS: lease and token counter, for each grant
-- ARGV: nonce and token, for each grant
-- Returns: for each grant that is not renewed: {its number from 1, 0 expired | -1 taken | -2 broken | a text if its keys
--          are unusable}; nothing for the others, which are nearly always all of them

local function gone(counter, token, held_token)
  local last = redis.call('HMGET', counter, 'last', 'broken')
  if (tonumber(last[2]) or 0) > token then
    return -2
  end
  return math.max(tonumber(last[1]) or 0, tonumber(held_token) or 0) > token and -1 or 0
end

local function renew(lease, counter, nonce, token)
  local held = redis.call('HMGET', lease, 'nonce', 'token', 'ttl')
  local ttl = tonumber(held[3])
  if held[1] ~= nonce or held[2] ~= token or not ttl then
    return gone(counter, tonumber(token), held[2])
  end
  redis.call('PEXPIRE', lease, ttl)
  redis.call('PEXPIRE', counter, math.max(WEEK, 2 * ttl))
end

local exceptions = {}
for i = 1, #KEYS, 2 do
  local good, answer = pcall(renew, KEYS[i], KEYS[i + 1], ARGV[i], ARGV[i + 1])
  if not good then
    -- Redis 7 raises a table, earlier servers a text. One bad key must not cost the other leases their renewal.
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
