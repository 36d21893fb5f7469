-- Answers {'none'}, {'lost', fields}, {'unnamed', fields} or {'entry', fields}.
local entry, list = load_entry()
if not entry then
  return list
end
return { 'entry', list }
