-- Leave the line of waiters; a wake-up that was already sent to this owner goes to the next one.
--
-- KEYS: 1 lease, 2 queue, 3 waiters
-- ARGV: 1 nonce, 2 name
-- Returns: 1 left the line, 0 was not in it

if leave(KEYS[2], KEYS[3], ARGV[1]) then
  return 1
end
if redis.call('EXISTS', KEYS[1]) == 0 then
  wake(KEYS[2], KEYS[3], ARGV[2])
end
return 0
