-- ARGV[3..5]: the offset, epoch and start expected, all '' when no entry is expected. ARGV[6..13]: the next entry.
-- Answers {'applied'}, {'none'}, {'lost', fields}, {'unnamed', fields} or {'fenced', fields}.
local entry, list = load_entry()
if entry then
  if ARGV[3] == '' or not guard_holds(entry, ARGV[3], ARGV[4], ARGV[5]) then
    return { 'fenced', list }
  end
elseif ARGV[3] ~= '' or list[1] == 'unnamed' then
  return list
end

-- First what frees memory: where there is none left, states that are good for nothing do not stay. An entry that counts as none may
-- still list epochs, and one that is gone may have left some behind: the caller names those too.
for i = 2, #KEYS do
  redis.call('UNLINK', KEYS[i])
end
write_entry(6, ARGV[9])
-- Last: until then the entry lists hashes that are gone, and counts as none.
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if string.match(field, '^groups:(%d+)$') then
    redis.call('HDEL', KEYS[1], field)
  end
end
return { 'applied' }
