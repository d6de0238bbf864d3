-- End a lease if it is still this owner's, and wake one waiter.
--
-- KEYS: 1 lease, 2 queue, 3 waiters
-- ARGV: 1 nonce, 2 name
-- Returns: 1 ended, 0 it was not ours

if redis.call('HGET', KEYS[1], 'nonce') ~= ARGV[1] then
  return 0
end
wake(KEYS[2], KEYS[3], ARGV[2])
redis.call('DEL', KEYS[1])
return 1
