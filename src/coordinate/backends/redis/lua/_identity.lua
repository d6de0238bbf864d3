-- Shared by scripts that look which life of which server this is. Not a script of its own.

-- Sought one by one: to take all of INFO apart takes four times as long, and a waiter's turn waits for this.
local function fact(info, name)
  local _, last = string.find(info, '\n' .. name .. ':', 1, true)
  return last and string.sub(info, last + 1, string.find(info, '\r', last, true) - 1)
end

-- Return the incarnation, nil on a replica; and what INFO said.
local function identity()
  local server, replication = redis.call('INFO', 'server'), redis.call('INFO', 'replication')
  if fact(replication, 'role') ~= 'master' then
    return nil, server, replication
  end
  return fact(server, 'run_id') .. '/' .. fact(replication, 'master_replid'), server, replication
end

local REPLICA = 'READONLY this server is a replica'
