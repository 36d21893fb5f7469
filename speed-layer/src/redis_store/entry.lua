-- Answers {'none'} or {'entry', fields}.
local entry, list = load_entry()
if not entry then
  return { 'none' }
end
return { 'entry', list }
