-- ARGV[3]…: for each epoch its number, the number of keys, then the keys.
-- Answers {'none'}, {'lost', fields}, {'unnamed', fields} or {'entry', fields, states}: a state or nil for each key, in order.
local entry, list = load_entry()
if not entry then
  return list
end
local states = {}
local at = 3
while at <= #ARGV do
  local epoch, count = ARGV[at], tonumber(ARGV[at + 1])
  local last = at + 1 + count
  -- A hash that the entry does not list is a remnant of an entry that was lost: its states belong to nothing.
  local listed = entry['groups:' .. epoch] ~= nil
  for from = at + 2, last, UNPACK_MAX do
    local to = math.min(from + UNPACK_MAX - 1, last)
    if listed then
      for _, state in ipairs(redis.call('HMGET', EPOCHS .. epoch, unpack(ARGV, from, to))) do
        states[#states + 1] = state
      end
    else
      for _ = from, to do
        states[#states + 1] = false
      end
    end
  end
  at = last + 1
end
return { 'entry', list, states }
