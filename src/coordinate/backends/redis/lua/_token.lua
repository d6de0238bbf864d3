-- Shared by scripts that raise a token. Not a script of its own.
--
-- Tokens are about 2^51 and stay below 2^53 until the year 2255, so a Lua number holds them exactly;
-- but only '%.0f' writes all their digits.

local WEEK = 7 * 24 * 3600 * 1000

local function microseconds()
  local now = redis.call('TIME')
  return now[1] * 1000000 + now[2]
end

-- Return the next token of a counter, above `floor`, as text.
local function next_token(counter, floor, now)
  local last = tonumber(redis.call('HGET', counter, 'last')) or 0
  return string.format('%.0f', math.max(last + 1, now, floor + 1))
end

-- Store a token; the counter outlives the lease and goes after a week in which nobody used it.
local function keep_token(counter, token, ttl)
  redis.call('HSET', counter, 'last', token)
  redis.call('PEXPIRE', counter, math.max(WEEK, 2 * ttl))
end
