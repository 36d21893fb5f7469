-- ARGV[3]: the floor. Answers {'none'}, {'lost', fields}, {'unnamed', fields} or {'entry', fields}: the entry as it was found.
local entry, list = load_entry()
if not entry then
  return list
end
if entry.format == FORMAT and below(entry.floor, ARGV[3]) then
  -- Changes nothing, for no such field is ever there: what follows is not refused for lack of memory, of which it frees some.
  redis.call('HDEL', KEYS[1], 'groups:')
  redis.call('HSET', KEYS[1], 'floor', ARGV[3])
  remove_below(entry, ARGV[3])
end
return { 'entry', list }
