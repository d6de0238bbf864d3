-- Shared by scripts that end a lease or a wait. Not a script of its own.
--
-- The line of waiters of a lease is a sorted set (member: nonce, score: order of arrival) and a hash that says
-- on which channel each nonce listens. The two change together.

-- Leave the line. True: the nonce stood in it.
local function leave(queue, waiters, nonce)
  if redis.call('ZREM', queue, nonce) == 0 then
    return false
  end
  redis.call('HDEL', waiters, nonce)
  return true
end

-- Tell the first waiter whose process still listens; those who do not are dropped from the line.
-- Comes before the write that frees the lease: if publishing is forbidden, nothing else has happened yet.
local function wake(queue, waiters, name)
  while true do
    local nonce = redis.call('ZPOPMIN', queue)[1]
    if not nonce then
      return
    end
    local channel = redis.call('HGET', waiters, nonce)
    redis.call('HDEL', waiters, nonce)
    if channel and redis.call('PUBLISH', channel, nonce .. ' ' .. name) > 0 then
      return
    end
  end
end
