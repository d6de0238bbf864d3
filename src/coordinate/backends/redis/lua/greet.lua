-- Note which life of the server this is, and until when nobody new gets a lease.
--
-- KEYS: 1 record of this namespace and server; none where the server has no slots (with mode off)
-- ARGV: 1 mode: auto, strict or off, 2 longest lease in ms, 3 seconds that an isolated primary may go on, or '',
--       or 'known' where another record has named this incarnation, 4 the server's name in a Cluster, or ''
-- Returns: 'LAG': ask again with the third argument, else
--          {incarnation, server time in us until when nobody new gets a lease, connected replicas, 1 if noted anew,
--           1 if replicas may not know yet what a new lease needs: that there is a record, and the longest lease}
-- Errors: READONLY this server is not a primary

local SECOND = 1000000

local incarnation, server, replication = identity()
if not incarnation then
  return redis.error_reply(REPLICA)
end
local replicas = tonumber(fact(replication, 'connected_slaves')) or 0
if ARGV[1] == 'off' then
  return {incarnation, '0', replicas, 0, 0}
end

local mine = tonumber(ARGV[2])
local seen = redis.call('HMGET', KEYS[1], 'incarnation', 'until', 'longest', 'server', 'alone')
local longest, ended = tonumber(seen[3]) or 0, tonumber(seen[2]) or 0
if ARGV[1] == 'strict' and not seen[1] and mine == 0 then
  -- Who has asked for no lease yet knows no length to wait for, and must not note one: it is for the first who does.
  return {incarnation, '0', replicas, 0, 0}
end
local alone = replicas > 0 and (seen[5] or not seen[1] or longest < mine)
if seen[1] == incarnation and longest >= mine then
  return {incarnation, seen[2], replicas, 0, seen[5] and replicas > 0 and 1 or 0}
end

-- A Cluster moves slots between servers, and a record comes along with its slot. A server of another name that was
-- never promoted cannot be the successor of the one that the record is about.
local came_along = seen[4] and seen[4] ~= ARGV[4] and not string.find(fact(replication, 'master_replid2'), '[^0]')
if seen[1] ~= incarnation and (seen[1] or ARGV[1] == 'strict') and not came_along and ARGV[3] ~= 'known' then
  if ARGV[3] == '' then
    return 'LAG'
  end
  -- Without a record nobody knows since when: the server's age bounds it, if it was never promoted.
  local since = microseconds()
  if not seen[1] and not string.find(fact(replication, 'master_replid2'), '[^0]') then
    since = since - (tonumber(fact(server, 'uptime_in_seconds')) or 0) * SECOND
  end
  local wait = math.max(longest, mine) * 1000 + (tonumber(ARGV[3]) + 1) * SECOND
  -- Never shortened: a lease of an earlier life may be longer than all of this one.
  ended = math.max(ended, since + wait)
  longest = 0
end
local text = string.format('%.0f', ended)
redis.call('HSET', KEYS[1], 'incarnation', incarnation, 'until', text, 'longest', math.max(longest, mine))
if ARGV[4] ~= '' then
  redis.call('HSET', KEYS[1], 'server', ARGV[4])
end
if alone then
  redis.call('HSET', KEYS[1], 'alone', '1')
end
return {incarnation, text, replicas, 1, alone and 1 or 0}
