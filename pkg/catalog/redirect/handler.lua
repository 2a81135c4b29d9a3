-- redirect: the gateway answers with another URL.

local config = ...

local function percent(c)
  return ("%%%02X"):format(c:byte())
end

-- The request's path and query, with all percent-encoded that a URL has not. It begins with a slash, as else it would
-- go on with the host that stands in front of it.
local function target(handle)
  local path, query = pdk.path(handle)
  if path:sub(1, 1) ~= "/" then
    path = "/" .. path
  end
  return ((query and path .. "?" .. query or path):gsub("[^%w%-._~:/?@!$&'()*+,;=%%%[%]]", percent))
end

local function request(handle)
  local location = config.location
  if config.keep_path then
    location = location .. target(handle) .. config.fragment
  end
  pdk.exit(handle, config.status, { location = location, ["content-type"] = "text/plain; charset=utf-8" }, "redirecting")
end

return { request = request }
