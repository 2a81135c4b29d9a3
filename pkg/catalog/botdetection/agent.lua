-- In front of the filter that matches regular expressions: tells it what to match.

local config = ...

-- Stands for a character that is not ASCII, and for a byte that is none. Versions of Envoy see one character or several
-- there, or one that no expression matches, which would get an agent past all of them.
local SUBSTITUTE = "\26"

local function ascii(text)
  text = text:gsub("[\192-\255][\128-\191]*", SUBSTITUTE)
  return (text:gsub("[\128-\191]", SUBSTITUTE))
end

local function request(handle)
  local agent = pdk.trim(table.concat(pdk.headers(handle, "user-agent"), ","))
  if agent ~= "" then
    pdk.set_metadata(handle, config.namespace, config.key, ascii(agent))
  end
end

return { request = request }
