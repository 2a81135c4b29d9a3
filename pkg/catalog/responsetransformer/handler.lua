-- Changes the response: headers, then the JSON body. `edit` is edit.lua, which stands in front.

local config = ...

local tonumber = tonumber

local function as_is(value)
  return value
end

-- Whether a body is too large to be changed. One of unknown length is held until it is known to be.
local function oversized(handle, length)
  if not length or length <= config.max_body_bytes then
    return false
  end
  pdk.add_header(handle, "x-plugin-skipped", "response-transformer")
  return true
end

-- Whether there is a JSON body to change. What follows an upgrade (101) is none, whatever its type says.
local function has_json(handle)
  return edit.wanted(config.json) and edit.media_type(handle) == "application/json" and pdk.header(handle, ":status") ~= "101"
end

-- Changing the body ends the life of what was fetched before it, so the headers come first.
local function response(handle)
  local json = has_json(handle)
  edit.headers(handle, config.headers, as_is)
  if not json or oversized(handle, tonumber(pdk.header(handle, "content-length"))) then
    return
  end
  local body = handle:body()
  if not body then
    -- To HEAD, and by 304: the length is that of a body which would have been changed.
    if pdk.header(handle, "content-length") ~= "0" then
      pdk.remove_header(handle, "content-length")
    end
    return
  elseif body:length() == 0 or oversized(handle, body:length()) then
    return
  end
  local new = edit.json(body:getBytes(0, body:length()), config.json, as_is)
  if new then
    body:setBytes(new)
  end
end

return {response = response}
