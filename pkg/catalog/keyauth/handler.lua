-- key-auth: who has the key is looked up by its SHA-256, so that how long a lookup takes tells nothing about keys.

local config = ...

local names, known = config.names, config.known
local concat, huge = table.concat, math.huge

local LONGEST_KEY = 4096

local is_key_name = {}
for _, name in ipairs(names) do
  is_key_name[name] = true
end

-- A reader of one kind of body: parse gives its fields as a list of {name=, value=}, without makes the text that is
-- left when the named fields are gone, or nil where none of them is there.
local form, json = {}, {}

-- As many fields as of a query: who sends them is not known yet, and a body has room for half a million.
function form.parse(text)
  return pdk.query(text)
end

-- The arguments of a query or form without those that are named like a key. What is left keeps its bytes.
local function without_arguments(text)
  local left, removed = {}, false
  for _, argument in ipairs(pdk.query(text, huge)) do
    if is_key_name[argument.name] then
      removed = true
    else
      left[#left + 1] = argument.raw
    end
  end
  return removed and concat(left, "&") or nil
end

form.without = without_arguments

function json.parse(text)
  local document = pdk.json.decode(text)
  local fields = {}
  if type(document) == "table" then
    for _, name in ipairs(names) do
      if type(document[name]) == "string" then
        fields[#fields + 1] = { name = name, value = document[name] }
      end
    end
  end
  return fields
end

function json.without(text)
  local document = pdk.json.decode(text)
  if type(document) ~= "table" then
    return nil
  end
  local removed = false
  for _, name in ipairs(names) do
    if type(document[name]) == "string" then
      document[name] = nil
      removed = true
    end
  end
  return removed and pdk.json.encode(document) or nil
end

local BODIES = {
  ["application/x-www-form-urlencoded"] = form,
  ["application/json"] = json,
}

-- The reader for the request's body; nil where it is of no kind that holds keys, so that it is not buffered.
local function body_reader(handle)
  local content_type = pdk.header(handle, "content-type")
  return content_type and BODIES[content_type:match("^%s*([^;%s]*)"):lower()]
end

local function read_body(handle)
  local body = handle:body()
  return body and body:getBytes(0, body:length()) or ""
end

-- The value of a name among fields, and whether it is there more than once. An argument without `=` is no value.
local function pick(fields, name)
  local found
  for _, field in ipairs(fields) do
    if field.name == name and field.value ~= true then
      if found then
        return found, true
      end
      found = field.value
    end
  end
  return found, false
end

-- The key of a request; or nil and what to tell the client.
local function find_key(handle)
  local query, body
  for _, name in ipairs(names) do
    local key, repeated
    if config.header then
      local values = pdk.headers(handle, name)
      key, repeated = values[1], #values > 1
    end
    if not key and config.query then
      if not query then
        local _, text = pdk.path(handle)
        query = text and pdk.query(text) or {}
      end
      key, repeated = pick(query, name)
    end
    if not key and config.body then
      if not body then
        local reader = body_reader(handle)
        body = reader and reader.parse(read_body(handle)) or {}
      end
      key, repeated = pick(body, name)
    end
    if repeated then
      return nil, "Duplicate API key found"
    end
    if key == "" then
      break
    end
    if key then
      return key
    end
  end
  return nil, "No API key found in request"
end

-- The consumer of the request and its credential's id; or nil and what to tell the client.
local function identify(handle)
  local key, problem = find_key(handle)
  if not key then
    return nil, problem
  end
  local credential = #key <= LONGEST_KEY and known.credentials[pdk.sha256(key)]
  if not credential or credential.ends and os.time() >= credential.ends then
    return nil, "Unauthorized"
  end
  return known.consumers[credential.consumer], credential.id
end

local function hide(handle)
  if config.header then
    for _, name in ipairs(names) do
      pdk.remove_header(handle, name)
    end
  end
  if config.query then
    local path, query = pdk.path(handle)
    local left = query and without_arguments(query)
    if left then
      pdk.set_path(handle, path, left ~= "" and left or nil)
    end
  end
  local reader = config.body and body_reader(handle)
  if reader then
    local left = reader.without(read_body(handle))
    if left then
      handle:body():setBytes(left)
    end
  end
end

return { request = authn.request(config, "key-auth", identify, authn.unauthorized(config), config.hide and hide) }
