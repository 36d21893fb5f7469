-- What every script begins with.
--
-- KEYS[1] is the entry's hash, KEYS[2…] are hashes of epochs. ARGV[1] is what the keys of epochs begin with, ARGV[2] the format of the
-- entry. An entry lists its epochs in the fields 'groups:<epoch>', with the number of groups that each epoch's hash holds: no script
-- has to search for keys, and an entry whose epochs are not all there (evicted, deleted) counts as none.
--
-- A script touches no key that is not named in KEYS. While a slot moves to another node of a cluster, some of its keys are here and
-- some are there; Redis refuses a call then whose named keys are not all in one place, and cannot do so for keys that it does not know
-- of. A caller that named too few is answered {'unnamed', fields}, and calls again.
--
-- Numbers are compared as decimal texts: Lua's own numbers are exact only up to 2^53.
--
-- A script that ran out of memory halfway would break the promise that a write is applied as a whole. Redis refuses for lack of memory
-- only the first write of a script, and only one that may take some, so either all of them happen or none. A script that adds states
-- begins with an HSET, which can be refused. One that frees begins with an UNLINK or an HDEL, which cannot: or a Redis that is full
-- would stay so.

local EPOCHS, FORMAT = ARGV[1], ARGV[2]
-- Lua refuses to unpack more than 8,000 values; even, because fields come in pairs.
local UNPACK_MAX = 7000

local NAMED = {}
for i = 2, #KEYS do
  NAMED[KEYS[i]] = true
end

local function below(a, b)
  return #a < #b or (#a == #b and a < b)
end

-- The entry by field and as the list that clients get; or nil and what to answer: {'none'}, {'lost', fields} for an entry whose epochs
-- are not whole, or {'unnamed', fields}.
local function load_entry()
  local list = redis.call('HGETALL', KEYS[1])
  if #list == 0 then
    return nil, { 'none' }
  end
  local entry = {}
  for i = 1, #list, 2 do
    entry[list[i]] = list[i + 1]
  end
  -- What another version wrote is shown to the client, and never taken apart here.
  if entry.format == FORMAT then
    for field in pairs(entry) do
      local epoch = string.match(field, '^groups:(%d+)$')
      if epoch and not NAMED[EPOCHS .. epoch] then
        return nil, { 'unnamed', list }
      end
    end
    for field, count in pairs(entry) do
      local epoch = string.match(field, '^groups:(%d+)$')
      if epoch and redis.call('HLEN', EPOCHS .. epoch) ~= tonumber(count) then
        return nil, { 'lost', list }
      end
    end
  end
  return entry, list
end

local function guard_holds(entry, offset, epoch, start)
  return entry.format == FORMAT and entry.offset == offset and entry.epoch == epoch and entry.start == start
end

-- The arguments from ARGV[at] on that tell an entry: offset, epoch, start, floor, event_time_max_us or '', rebuilding_to or '', halted
-- after '=' or '', lost.
local function write_entry(at, floor)
  redis.call('HSET', KEYS[1], 'format', FORMAT, 'offset', ARGV[at], 'epoch', ARGV[at + 1], 'start', ARGV[at + 2], 'floor', floor,
    'lost', ARGV[at + 7])
  for place, field in pairs({ [4] = 'event_time_max_us', [5] = 'rebuilding_to' }) do
    if ARGV[at + place] ~= '' then
      redis.call('HSET', KEYS[1], field, ARGV[at + place])
    else
      redis.call('HDEL', KEYS[1], field)
    end
  end
  if ARGV[at + 6] ~= '' then
    redis.call('HSET', KEYS[1], 'halted', string.sub(ARGV[at + 6], 2))
  else
    redis.call('HDEL', KEYS[1], 'halted')
  end
end

-- Removes the hashes of the epochs that the entry lists below `floor`.
local function remove_below(entry, floor)
  for field in pairs(entry) do
    local epoch = string.match(field, '^groups:(%d+)$')
    if epoch and below(epoch, floor) then
      redis.call('UNLINK', EPOCHS .. epoch)
      redis.call('HDEL', KEYS[1], field)
    end
  end
end
