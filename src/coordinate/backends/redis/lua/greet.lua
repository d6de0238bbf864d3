-- Note which life of the server this is, and until when nobody new gets a lease.
--
-- Asked without the third argument it notes no news: those who ask about several records have to see all of them first,
-- and then note the 'LAG' before the 'NEW'. So nobody ever finds a record that knows of the news but not of the wait.
--
-- KEYS: 1 record of this namespace and server; none where the server has no slots (with mode off)
-- ARGV: 1 mode: auto, strict or off, 2 longest lease in ms, 3 seconds that an isolated primary may go on, or '',
--       4 the server's name in a Cluster, or '', 5 where another record has named this incarnation, its server time in
--       us until when nobody new gets a lease; else ''
-- Returns: news that were not noted: 'LAG' there was another life before, 'NEW' nothing is known about this server;
--          else {incarnation, server time in us until when nobody new gets a lease, connected replicas, 1 if noted anew,
--           1 if replicas may not know yet what a new lease needs: that there is a record, and the longest lease,
--           us that were left of the wait when it was noted, why nothing could be noted or ''}
-- Errors: READONLY this server is not a primary

local SECOND = 1000000
local ALLOWED = {OOM = true, MISCONF = true, NOREPLICAS = true}

local incarnation, server, replication = identity()
if not incarnation then
  return redis.error_reply(REPLICA)
end
local replicas = tonumber(fact(replication, 'connected_slaves')) or 0
if ARGV[1] == 'off' then
  return {incarnation, '0', replicas, 0, 0, '0', ''}
end

local mine, now = tonumber(ARGV[2]), microseconds()
local seen = redis.call('HMGET', KEYS[1], 'incarnation', 'until', 'longest', 'server', 'alone', 'wait')
local ended, longest, wait = tonumber(seen[2]) or 0, tonumber(seen[3]) or 0, tonumber(seen[6]) or 0
local alone = replicas > 0 and (seen[5] or not seen[1] or longest < mine)

-- More is left than there ever was: the clock was set back, or this is another server's record by its own clock.
local set_back = ended - now > wait
if set_back then
  ended = now + wait
end

local function answer(news, refusal)
  local lonely = alone and refusal == '' and 1 or 0
  return {incarnation, string.format('%.0f', ended), replicas, news, lonely, string.format('%.0f', wait), refusal}
end

local news = seen[1] ~= incarnation
if not news and longest >= mine and not set_back then
  return answer(0, '')
end

if news then
  -- A Cluster moves slots between servers, and a record comes along with its slot. A server of another name that was
  -- never promoted cannot be the successor of the one that the record is about.
  local promoted = string.find(fact(replication, 'master_replid2'), '[^0]')
  local succeeds = seen[1] and not (seen[4] and seen[4] ~= ARGV[4] and not promoted)
  if ARGV[3] == '' then
    return succeeds and 'LAG' or 'NEW'
  end
  if ARGV[5] ~= '' then
    ended = math.max(ended, tonumber(ARGV[5]))
  elseif ARGV[1] == 'strict' and not seen[1] and mine == 0 then
    -- Who has asked for no lease yet knows no length to wait for, and must not note one: it is for the first who does.
    return answer(0, '')
  elseif succeeds or (ARGV[1] == 'strict' and not seen[1]) then
    -- Without a record nobody knows since when: the server's age bounds it, if it was never promoted.
    local since = now
    if not seen[1] and not promoted then
      since = since - (tonumber(fact(server, 'uptime_in_seconds')) or 0) * SECOND
    end
    -- Never shortened: a lease of an earlier life may be longer than all of this one.
    ended = math.max(ended, since + math.max(longest, mine) * 1000 + (tonumber(ARGV[3]) + 1) * SECOND)
    longest = 0
  end
  wait = math.max(0, ended - now)
end

local noted = {'incarnation', incarnation, 'until', string.format('%.0f', ended), 'wait', string.format('%.0f', wait),
  'longest', math.max(longest, mine)}
if ARGV[4] ~= '' then
  noted[#noted + 1] = 'server'
  noted[#noted + 1] = ARGV[4]
end
if alone then
  noted[#noted + 1] = 'alone'
  noted[#noted + 1] = '1'
end
local written = redis.pcall('HSET', KEYS[1], unpack(noted))
if type(written) == 'table' and written.err then
  -- A server that takes no writes now: what is held needs to know who it is all the same, and new leases are refused.
  local why = string.match(written.err, '%u%u%u+')
  if not ALLOWED[why] then
    return written
  end
  return answer(0, written.err)
end
return answer(news and 1 or 0, '')
