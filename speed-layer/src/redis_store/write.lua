-- ARGV[3..5]: the offset, epoch and start expected. ARGV[6..13]: the next entry. ARGV[14]…: for each epoch its number, the number of
-- states, then key and state of each.
-- Answers {'applied'}, {'none'}, {'lost', fields}, {'unnamed', fields} or {'fenced', fields}.
local entry, list = load_entry()
if not entry then
  return list
end
if not guard_holds(entry, ARGV[3], ARGV[4], ARGV[5]) then
  return { 'fenced', list }
end

-- Changes nothing: where memory is short, this is what is refused.
redis.call('HSET', KEYS[1], 'format', FORMAT)
local floor = entry.floor
if below(floor, ARGV[9]) then
  floor = ARGV[9]
end
local at = 14
while at <= #ARGV do
  local epoch, count = ARGV[at], tonumber(ARGV[at + 1])
  if not below(epoch, floor) and count > 0 and not entry['groups:' .. epoch] then
    -- A remnant of an entry that was lost must not show through. Once it is gone, a key in a slot that is on its way to another node
    -- can no longer be touched here: that comes to light now, before a state is written.
    redis.call('UNLINK', EPOCHS .. epoch)
    redis.call('HLEN', EPOCHS .. epoch)
  end
  at = at + 2 + 2 * count
end

-- From here on nothing can fail.
remove_below(entry, floor)
at = 14
while at <= #ARGV do
  local epoch, count = ARGV[at], tonumber(ARGV[at + 1])
  local last = at + 1 + 2 * count
  if not below(epoch, floor) and count > 0 then
    local key = EPOCHS .. epoch
    for from = at + 2, last, UNPACK_MAX do
      redis.call('HSET', key, unpack(ARGV, from, math.min(from + UNPACK_MAX - 1, last)))
    end
    redis.call('HSET', KEYS[1], 'groups:' .. epoch, redis.call('HLEN', key))
  end
  at = last + 1
end
write_entry(6, floor)
return { 'applied' }
