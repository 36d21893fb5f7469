-- ARGV[3..5]: the offset, epoch and start expected. ARGV[6..11]: the next entry. ARGV[12]…: for each epoch its number, the number of
-- states, then key and state of each.
-- Answers {'applied'}, {'none'} or {'fenced', fields}.
local entry, list = load_entry()
if not entry then
  return { 'none' }
end
if not guard_holds(entry, ARGV[3], ARGV[4], ARGV[5]) then
  return { 'fenced', list }
end

local floor = entry.floor
if below(floor, ARGV[9]) then
  floor = ARGV[9]
  remove_epochs(entry, floor)
end
local at = 12
while at <= #ARGV do
  local epoch, count = ARGV[at], tonumber(ARGV[at + 1])
  local last = at + 1 + 2 * count
  if not below(epoch, floor) and count > 0 then
    local key = EPOCHS .. epoch
    if not entry['groups:' .. epoch] then
      -- A remnant of an entry that was lost must not show through.
      redis.call('UNLINK', key)
    end
    for from = at + 2, last, UNPACK_MAX do
      redis.call('HSET', key, unpack(ARGV, from, math.min(from + UNPACK_MAX - 1, last)))
    end
    local groups = redis.call('HLEN', key)
    entry['groups:' .. epoch] = tostring(groups)
    redis.call('HSET', KEYS[1], 'groups:' .. epoch, groups)
  end
  at = last + 1
end
write_entry(6, floor)
return { 'applied' }
