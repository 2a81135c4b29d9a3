-- What both transformers do with their five lists. Each list holds entries in the order of the config: a name for
-- remove, {old, new} for rename, {name, value} for the others. `value` turns the value of an entry into what is to be
-- written; nil leaves the entry out.

local edit = {}

local ipairs = ipairs
local byte, find, lower, match, sub = string.byte, string.find, string.lower, string.match, string.sub
local concat, insert = table.concat, table.insert

-- Whether any list has an entry.
function edit.wanted(rules)
  return #rules.remove + #rules.rename + #rules.replace + #rules.add + #rules.append > 0
end

-- The media type of a message in lower case, or nil where there is none or its body is encoded (compressed).
function edit.media_type(handle)
  local encoding = pdk.header(handle, "content-encoding") or ""
  if encoding ~= "" and lower(encoding) ~= "identity" then
    return nil
  end
  return match(lower(pdk.header(handle, "content-type") or ""), "^%s*([^;%s]+)")
end

-- Whether a text can be the value of a header: Envoy answers 503 in the place of a request that has another one.
function edit.fits(name, text)
  if name == ":authority" then
    return find(text, "^[%w%-._~%%!$&'()*+,;=:%[%]]+$") ~= nil
  end
  return not find(text, "[%z\1-\8\10-\31\127]")
end

-- A request has one Host.
local function set_all(handle, name, values)
  if name == ":authority" then
    values = {edit.fits(name, values[1]) and values[1] or pdk.header(handle, name)}
  end
  pdk.set_header(handle, name, values[1])
  for i = 2, #values do
    pdk.add_header(handle, name, values[i])
  end
end

function edit.headers(handle, rules, value)
  for _, name in ipairs(rules.remove) do
    pdk.remove_header(handle, name)
  end
  for _, entry in ipairs(rules.rename) do
    local values = pdk.headers(handle, entry[1])
    if #values > 0 then
      pdk.remove_header(handle, entry[1])
      set_all(handle, entry[2], values)
    end
  end
  for _, entry in ipairs(rules.replace) do
    local new = pdk.header(handle, entry[1]) and value(entry[2], entry[1])
    if new then
      pdk.set_header(handle, entry[1], new)
    end
  end
  for _, entry in ipairs(rules.add) do
    local new = not pdk.header(handle, entry[1]) and value(entry[2], entry[1])
    if new then
      pdk.set_header(handle, entry[1], new)
    end
  end
  for _, entry in ipairs(rules.append) do
    local new = value(entry[2], entry[1])
    if new then
      pdk.add_header(handle, entry[1], new)
    end
  end
end

-- Rules on a list of {name = …, …}, such as the arguments of a query or the members of a JSON object. `kind` knows how
-- one is written: kind.make(name, value), kind.renamed(item, name), and kind.append(list, name, value).

local function has(list, name)
  for _, item in ipairs(list) do
    if item.name == name then
      return true
    end
  end
  return false
end

local function without(list, name)
  if not has(list, name) then
    return list
  end
  local kept = {}
  for _, item in ipairs(list) do
    if item.name ~= name then
      insert(kept, item)
    end
  end
  return kept
end

-- Renaming onto a name that is there replaces it.
local function renamed(list, old, new, kind)
  if old == new or not has(list, old) then
    return list
  end
  list = without(list, new)
  for i, item in ipairs(list) do
    if item.name == old then
      list[i] = kind.renamed(item, new)
    end
  end
  return list
end

-- Of several with the name, the first takes the value and the others go.
local function replaced(list, name, value, kind)
  local kept, done = {}, false
  for _, item in ipairs(list) do
    if item.name ~= name then
      insert(kept, item)
    elseif not done then
      insert(kept, kind.make(name, value))
      done = true
    end
  end
  return kept
end

function edit.list(list, rules, kind, value)
  for _, name in ipairs(rules.remove) do
    list = without(list, name)
  end
  for _, entry in ipairs(rules.rename) do
    list = renamed(list, entry[1], entry[2], kind)
  end
  for _, entry in ipairs(rules.replace) do
    list = replaced(list, entry[1], value(entry[2]), kind)
  end
  for _, entry in ipairs(rules.add) do
    if not has(list, entry[1]) then
      insert(list, kind.make(entry[1], value(entry[2])))
    end
  end
  for _, entry in ipairs(rules.append) do
    kind.append(list, entry[1], value(entry[2]))
  end
  return list
end

-- JSON, which is read but for what rules name. A client must not get around the rules by what one reader takes and another
-- does not, so what is no UTF-8, halves of surrogate pairs and deep nesting are taken.

local BLANK = "[^ \t\n\r]"

-- The place behind the string at `at`, or nil where it is none.
local function string_end(text, at)
  while true do
    at = find(text, '[%z\1-\31"\\]', at + 1)
    local c = at and byte(text, at)
    if c == 34 then
      return at + 1
    elseif c ~= 92 then
      return nil
    end
    at = match(text, '^["\\/bfnrt]()', at + 1) or match(text, "^u%x%x%x%x()", at + 1)
    if not at then
      return nil
    end
    at = at - 1
  end
end

-- The place behind the number, true, false or null at `at`, or nil where there is none.
local function scalar_end(text, at)
  local whole, behind = match(text, "^%-?(%d+)()", at)
  if not whole then
    return match(text, "^true()", at) or match(text, "^false()", at) or match(text, "^null()", at)
  elseif find(whole, "^0%d") then
    return nil
  end
  behind = match(text, "^%.%d+()", behind) or behind
  return match(text, "^[eE][+-]?%d+()", behind) or behind
end

-- The place behind a key and its colon, or nil.
local function key_end(text, at)
  local behind = byte(text, at) == 34 and string_end(text, at)
  at = behind and find(text, BLANK, behind)
  return at and byte(text, at) == 58 and at + 1 or nil
end

-- Whether text is one JSON object.
local function is_object(text)
  local at = find(text, BLANK)
  if not at or byte(text, at) ~= 123 then
    return false
  end
  local open, n = {125}, 1 -- what closes the objects and lists around `at`
  local empty = true
  at = at + 1
  while n > 0 do
    at = find(text, BLANK, at)
    local c = at and byte(text, at)
    if c == open[n] then
      n, at, empty = n - 1, at + 1, false
    else
      if not empty then
        at = c == 44 and find(text, BLANK, at + 1)
      end
      if at and open[n] == 125 then
        at = key_end(text, at)
        at = at and find(text, BLANK, at)
      end
      c = at and byte(text, at)
      if c == 123 or c == 91 then
        n, at, empty = n + 1, at + 1, true
        open[n] = c + 2
      else
        at = at and (c == 34 and string_end or scalar_end)(text, at)
        empty = false
      end
      if not at then
        return false
      end
    end
  end
  return not find(text, BLANK, at)
end

-- The members of an object as {name = …, key = …, value = …}, the latter two in the text they had: what no rule names goes on
-- byte for byte, whatever its numbers, escapes and duplicates are.

-- The place behind the string that starts at `at`. The text is known to be JSON.
local function behind_string(text, at)
  repeat
    at = find(text, '["\\]', at + 1)
    local escaped = sub(text, at, at) == "\\"
    if escaped then
      at = at + 1
    end
  until not escaped
  return at + 1
end

-- The place behind the value that starts at `at`.
local function behind_value(text, at)
  local c = sub(text, at, at)
  if c == '"' then
    return behind_string(text, at)
  elseif c ~= "{" and c ~= "[" then
    return find(text, "[%s,}]", at)
  end
  local depth = 0
  repeat
    at = find(text, '["{}%[%]]', at)
    c = sub(text, at, at)
    if c == '"' then
      at = behind_string(text, at)
    else
      depth = depth + ((c == "{" or c == "[") and 1 or -1)
      at = at + 1
    end
  until depth == 0
  return at
end

local function members(text)
  local list = {}
  local at = find(text, '["}]')
  while sub(text, at, at) == '"' do
    local behind = behind_string(text, at)
    local key = sub(text, at, behind - 1)
    at = find(text, "[^%s:]", behind)
    behind = behind_value(text, at)
    insert(list, {name = pdk.json.decode(key), key = key, value = sub(text, at, behind - 1)})
    at = find(text, "[^%s,]", behind)
  end
  return list
end

local MEMBER = {}

function MEMBER.make(name, value)
  return {name = name, key = pdk.json.encode(name), value = value}
end

function MEMBER.renamed(item, name)
  return MEMBER.make(name, item.value)
end

-- Appending makes a list of what is there. An object stays as it is: it has no place for a value without a name.
local function appended(old, new)
  local first = sub(old, 1, 1)
  if first == "{" then
    return old
  elseif old == "null" or find(old, "^%[%s*%]$") then
    return "[" .. new .. "]"
  elseif first == "[" then
    return sub(old, 1, -2) .. "," .. new .. "]"
  end
  return "[" .. old .. "," .. new .. "]"
end

function MEMBER.append(list, name, value)
  for i = #list, 1, -1 do -- of duplicates, readers take the last
    if list[i].name == name then
      list[i] = {name = name, key = list[i].key, value = appended(list[i].value, value)}
      return
    end
  end
  insert(list, MEMBER.make(name, "[" .. value .. "]"))
end

local function object(list)
  local texts = {}
  for i, item in ipairs(list) do
    texts[i] = item.key .. ":" .. item.value
  end
  return "{" .. concat(texts, ",") .. "}"
end

-- The text of a JSON object with the rules applied, whose values are JSON texts; nil where nothing changes, or where
-- it is no JSON object.
function edit.json(text, rules, value)
  if not is_object(text) then
    return nil
  end
  local list = members(text)
  local before = object(list)
  local after = object(edit.list(list, rules, MEMBER, value))
  return after ~= before and after or nil
end

return edit
