-- Grant a lease, or say who holds it. Idempotent: the present owner gets its grant again, for another ttl.
--
-- KEYS: 1 lease, 2 token counter, 3 queue, 4 waiters
-- ARGV: 1 nonce, 2 ttl in ms, 3 floor, 4 owner (JSON), 5 channel to be woken on, or '' for not waiting in line,
--       6 server time in us before which nobody new gets it, 7 the incarnation that this was said of, or '' if it was
--       said just now
-- Returns: granted: '<token> <ttl in ms>'
--          held: {token, ttl in ms, owner, remaining ms}
--          quarantined: {remaining ms}
--          not asked for, as the server is another one than it was: {}
-- Errors: FLOOR the floor is more than a day ahead of this server's clock
--         CORRUPT the lease's hash lacks a field

local DAY = 24 * 3600 * 1000000
local nonce, ttl, floor, channel = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[5]

local function queue_up(lease_ttl)
  if not redis.call('ZSCORE', KEYS[3], nonce) then
    local last = redis.call('ZRANGE', KEYS[3], -1, -1, 'WITHSCORES')
    redis.call('ZADD', KEYS[3], (tonumber(last[2]) or 0) + 1, nonce)
  end
  redis.call('HSET', KEYS[4], nonce, channel)
  -- Waiters look again within the ttl of the holder they saw. Never shortened: some saw a longer one.
  local keep = 2 * lease_ttl + 60000
  for i = 3, 4 do
    if redis.call('PTTL', KEYS[i]) < keep then
      redis.call('PEXPIRE', KEYS[i], keep)
    end
  end
end

if ARGV[7] ~= '' then
  local incarnation = identity()
  if not incarnation then
    return redis.error_reply(REPLICA)
  elseif incarnation ~= ARGV[7] then
    return {}
  end
end

local held = redis.call('HMGET', KEYS[1], 'nonce', 'token', 'ttl', 'owner')
if held[1] then
  local held_ttl = tonumber(held[3])
  if not (held[2] and held_ttl and held[4]) then
    return redis.error_reply('CORRUPT the lease has lost a field')
  end
  if held[1] == nonce then
    redis.call('PEXPIRE', KEYS[1], held[3])
    leave(KEYS[3], KEYS[4], nonce)
    return held[2] .. ' ' .. held[3]
  end
  local left = redis.call('PTTL', KEYS[1])
  if left < 0 or left > held_ttl then
    -- Only a server clock that was set back does this; the lease would outlive its holder by as much.
    redis.call('PEXPIRE', KEYS[1], held[3])
    left = held_ttl
  end
  if channel ~= '' then
    queue_up(held_ttl)
  end
  return {held[2], held[3], held[4], left}
end

local now = microseconds()
local wait = tonumber(ARGV[6]) - now
if wait > 0 then
  wait = math.ceil(wait / 1000)
  if channel ~= '' then
    queue_up(wait)
  end
  return {wait}
end
if floor > now + DAY then
  return redis.error_reply('FLOOR the floor is more than a day ahead of this server\'s clock')
end
local token = next_token(KEYS[2], floor, now)
redis.call('HSET', KEYS[1], 'nonce', nonce, 'token', token, 'ttl', ttl, 'owner', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ttl)
keep_token(KEYS[2], token, tonumber(ttl))
leave(KEYS[3], KEYS[4], nonce)
return token .. ' ' .. ttl
