-- Read who holds leases.
--
-- KEYS: leases
-- ARGV: none
-- Returns: for each lease: {token, ttl in ms, owner, remaining ms}, or nil when nobody holds it

local answers = {}
for i, lease in ipairs(KEYS) do
  local held = redis.call('HMGET', lease, 'token', 'ttl', 'owner')
  if held[1] then
    answers[i] = {held[1], held[2], held[3], redis.call('PTTL', lease)}
  else
    answers[i] = false
  end
end
return answers
