-- ARGV[3..5]: the offset, epoch and start expected, all '' when no entry is expected. ARGV[6..11]: the next entry.
-- Answers {'applied'}, {'none'} or {'fenced', fields}.
local entry, list = load_entry()
if ARGV[3] == '' then
  if entry then
    return { 'fenced', list }
  end
elseif not entry then
  return { 'none' }
elseif not guard_holds(entry, ARGV[3], ARGV[4], ARGV[5]) then
  return { 'fenced', list }
end

-- The entry is read again without the check: an entry that counts as none may still list epochs.
local fields = redis.call('HKEYS', KEYS[1])
local listed = {}
for _, field in ipairs(fields) do
  listed[field] = true
end
write_entry(6, ARGV[9])
remove_epochs(listed, nil)
return { 'applied' }
