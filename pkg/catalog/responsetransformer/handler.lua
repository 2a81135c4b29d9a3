-- Changes the response: headers, then the JSON body. `edit` is edit.lua, which stands in front.

local config = ...

local tonumber = tonumber

local function as_is(value)
  return value
end

-- Whether the body is known to be too large to be held. One of unknown length is held as far as Envoy allows.
local function oversized(handle)
  local length = tonumber(pdk.header(handle, "content-length"))
  return length and length > config.max_body_bytes
end

-- Whether there is a JSON body to change. What follows an upgrade (101) is none, whatever its type says.
local function has_json(handle)
  return edit.wanted(config.json) and edit.media_type(handle) == "application/json" and pdk.header(handle, ":status") ~= "101"
end

-- Changing the body ends the life of what was fetched before it, so the headers come first.
local function response(handle)
  local json = has_json(handle)
  edit.headers(handle, config.headers, as_is)
  if not json then
    return
  end
  if oversized(handle) then
    pdk.add_header(handle, "x-plugin-skipped", "response-transformer")
    return
  end
  local body = handle:body()
  if not body then
    -- To HEAD, and by 304: the length is that of a body which would have been changed.
    if pdk.header(handle, "content-length") ~= "0" then
      pdk.remove_header(handle, "content-length")
    end
    return
  elseif body:length() == 0 then
    return
  end
  local new = edit.json(body:getBytes(0, body:length()), config.json, as_is)
  if new then
    body:setBytes(new)
  end
end

return {response = response}
