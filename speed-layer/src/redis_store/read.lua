-- ARGV[3]: the lowest epoch wanted.
-- Answers {'none'}, {'lost', fields}, {'unnamed', fields} or {'entry', fields, {epoch, {key, state, …}, …}}.
local entry, list = load_entry()
if not entry then
  return list
end
local epochs = {}
for field in pairs(entry) do
  local epoch = string.match(field, '^groups:(%d+)$')
  if epoch and not below(epoch, ARGV[3]) then
    epochs[#epochs + 1] = epoch
    epochs[#epochs + 1] = redis.call('HGETALL', EPOCHS .. epoch)
  end
end
return { 'entry', list, epochs }
