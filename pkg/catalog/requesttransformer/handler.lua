-- Changes the request in Kong's order: uri, method, headers, body, query. `edit` is edit.lua, which stands in front.

local config = ...

local ipairs, type = ipairs, type
local concat, insert = table.concat, table.insert
local byte, find, format, gmatch = string.byte, string.find, string.format, string.gmatch
local gsub, match, sub = string.gsub, string.match, string.sub

local FORM = "application/x-www-form-urlencoded"

-- Arguments of a query or a form: a list of {name = decoded, text = as sent}.

local function arguments(text)
  local list = {}
  if text and text ~= "" then
    for piece in gmatch(text .. "&", "([^&]*)&") do
      insert(list, {name = pdk.url.decode(match(piece, "^[^=]*"), true), text = piece})
    end
  end
  return list
end

local ARGUMENT = {}

function ARGUMENT.make(name, value)
  return {name = name, text = pdk.url.encode(name) .. "=" .. pdk.url.encode(value)}
end

function ARGUMENT.renamed(item, name)
  return {name = name, text = pdk.url.encode(name) .. (match(item.text, "=.*$") or "")}
end

function ARGUMENT.append(list, name, value)
  insert(list, ARGUMENT.make(name, value))
end

-- The decoded value, or nil where there is no `=`.
local function argument_value(item)
  local text = match(item.text, "=(.*)$")
  return text and pdk.url.decode(text, true)
end

local function joined(list)
  local texts = {}
  for i, a in ipairs(list) do
    texts[i] = a.text
  end
  return concat(texts, "&")
end

-- The fields of a form, encoded anew: its client may have left unencoded what a query cannot hold.
local function form(text)
  local list = {}
  for i, field in ipairs(pdk.query(text, math.huge)) do
    if field.value == true then
      list[i] = {name = field.name, text = pdk.url.encode(field.name)}
    else
      list[i] = ARGUMENT.make(field.name, field.value)
    end
  end
  return list
end

-- Templates: a value is a text, or a list of texts and {reference, default}.

-- The value of a query argument, `true` where it has no `=`, as Kong renders it.
local function query_value(list, name)
  for _, a in ipairs(list) do
    if a.name == name then
      return argument_value(a) or "true"
    end
  end
end

-- Kong's header tables take `_` for `-`, so that `$(headers.x_request_id)` can be written.
local function header_value(handle, name)
  return pdk.headers(handle, name)[1] or pdk.headers(handle, (gsub(name, "_", "-")))[1]
end

-- What the references of the config are in this request, before anything is changed.
local function lookup(handle)
  local values = {}
  local list
  for i, reference in ipairs(config.references) do
    if reference.from == "headers" then
      values[i] = header_value(handle, reference.name)
    else
      if not list then
        local _, query = pdk.path(handle)
        list = arguments(query)
      end
      values[i] = query_value(list, reference.name)
    end
  end
  return values
end

local function render(template, values, escape)
  if type(template) == "string" then
    return template
  end
  local out = {}
  for i, piece in ipairs(template) do
    if type(piece) == "string" then
      out[i] = piece
    else
      local value = values[piece.reference] or piece.default or ""
      out[i] = escape and escape(value) or value
    end
  end
  return concat(out)
end

-- A path without segments that lead upwards, in any form that servers take for one (`..;x`, too): what a client sends must
-- not leave the place that it is put into.
local function confined(path)
  return (gsub(path, "/%.%.?%f[/;%z][^/]*", ""))
end

local function percent(c)
  return format("%%%02X", byte(c))
end

-- A value in a path keeps its slashes; all that means something else in a URI is encoded.
local function path_escape(value)
  return (gsub(value, "[^A-Za-z0-9%-._~/!$&'()*+,;=:@]", percent))
end

-- An upgrade without a length has no body, and its stream does not end before the upstream has answered. Envoy takes
-- `upgrade` away from requests that are none.
local function is_upgrade(handle)
  return pdk.header(handle, "upgrade") and (pdk.header(handle, "content-length") or "0") == "0"
end

local function body_text(handle)
  if is_upgrade(handle) then
    return
  end
  -- Of HTTP/2 Envoy holds 16 MiB, which would keep the worker from all other requests for seconds.
  local too_large = tonumber(pdk.header(handle, "content-length") or 0) > config.max_body_bytes
  local body = not too_large and handle:body()
  local length = body and body:length() or 0
  if too_large or length > config.max_body_bytes then
    pdk.fail(handle, 413, "Request size limit exceeded", {request_id = true})
  end
  return length > 0 and body:getBytes(0, length) or nil
end

-- A method without a body moves the fields of a form to the query, and the body is dropped.
local function form_to_query(handle)
  if edit.media_type(handle) ~= FORM then
    return
  end
  local text = body_text(handle)
  if not text then
    return
  end
  handle:body():setBytes("")
  pdk.remove_header(handle, "content-type")
  local path, query = pdk.path(handle)
  local fields = joined(form(text))
  if query and query ~= "" then
    fields = query .. "&" .. fields
  end
  pdk.set_path(handle, path, fields)
end

local BODILESS = {GET = true, HEAD = true, TRACE = true}

local function set_method(handle)
  local method = config.http_method
  if not method then
    return
  end
  local before = pdk.header(handle, ":method")
  if (before == "HEAD") ~= (method == "HEAD") then
    pdk.save(handle, "before", before)
  end
  pdk.set_header(handle, ":method", method)
  if BODILESS[method] then
    form_to_query(handle)
  end
end

local function set_body(handle, value)
  if not edit.wanted(config.body) then
    return
  end
  local media_type = edit.media_type(handle)
  if media_type ~= FORM and media_type ~= "application/json" then
    return
  end
  local text = body_text(handle)
  if not text then
    return
  end
  local new
  if media_type == FORM then
    new = joined(edit.list(form(text), config.body, ARGUMENT, value))
  else
    new = edit.json(text, config.body, function(template)
      return pdk.json.encode(value(template))
    end)
  end
  if new and new ~= text then
    handle:body():setBytes(new)
  end
end

local function set_query(handle, value)
  if not edit.wanted(config.querystring) then
    return
  end
  local path, query = pdk.path(handle)
  local list = edit.list(arguments(query), config.querystring, ARGUMENT, value)
  local new = joined(list)
  if new ~= (query or "") then
    pdk.set_path(handle, path, #list > 0 and new or nil)
  end
end

local function request(handle)
  local values = lookup(handle)
  local function value(template)
    return render(template, values)
  end
  -- A client must not be able to break the request by what it sends.
  local function header(template, name)
    local text = render(template, values)
    return edit.fits(name, text) and text or nil
  end
  if config.uri then
    local path = render(config.uri, values, path_escape)
    local _, query = pdk.path(handle)
    path = sub(path, 1, 1) == "/" and path or "/" .. path
    if type(config.uri) == "table" then
      path = confined(path)
    end
    pdk.set_path(handle, path ~= "" and path or "/", query)
  end
  set_method(handle)
  edit.headers(handle, config.headers, header)
  set_body(handle, value)
  set_query(handle, value)
end

-- Whether an answer has a body depends on the method, and Envoy frames what it sends by the upstream's. A client that
-- sent another one would wait for a body, or take the body for the next answer.
local function response(handle)
  local before = pdk.saved(handle, "before")
  if before == "HEAD" then
    if not pdk.header(handle, "content-encoding") then
      -- A plugin in front that compresses would make a body of none.
      pdk.set_header(handle, "content-encoding", "identity")
    end
    pdk.drop_body(handle)
  elseif before then
    pdk.remove_header(handle, "content-length")
  end
end

return {request = request, response = config.http_method and response}
