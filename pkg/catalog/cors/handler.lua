-- cors: preflights are answered here, real responses get their headers on the way back.

local config = ...

local concat = table.concat

local METADATA_NAMESPACE = "istio-plugins.cors"
local DEFAULT_PORTS = { http = "80", https = "443" }

-- The origin without default port and path, in lower case, and its host; nil where the text is no origin.
local function parse(text)
  if text == "null" then
    return text, text
  end
  local scheme, authority = text:match("^(%a[%w+.-]*)://([^/?#]+)")
  if not scheme then
    return nil
  end
  local host, port = authority:match("^(%[[%x:.]+%])(.*)$")
  if not host then
    host, port = authority:match("^([%w._-]+)(.*)$")
  end
  if not host or not port:find("^:?%d*$") or port:find("^%d") then
    return nil
  end
  scheme, host, port = scheme:lower(), host:lower(), port:sub(2)
  if port == "" or port == DEFAULT_PORTS[scheme] then
    return scheme .. "://" .. host, host
  end
  return scheme .. "://" .. host .. ":" .. port, host
end

-- The request's origin as it was sent, or nil; and whether there is one. Several are no origin, but present.
local function origin_of(handle)
  local values = pdk.headers(handle, "origin")
  if #values > 1 then
    return nil, true
  end
  local origin = values[1]
  if not origin or origin == "" then
    return nil, false
  end
  return origin, true
end

-- In front of the filter that matches regular expressions: tells it what to match.
if config.publish then
  return {
    request = function(handle)
      local origin = origin_of(handle)
      local normal, host = parse(origin or "")
      if normal then
        pdk.set_metadata(handle, METADATA_NAMESPACE, config.publish, { origin = normal, host = host })
      end
    end,
  }
end

-- Whether one of the regular expressions matched. The filter always says so; if it did not run, nobody may pass.
local function expression_matched(handle)
  local result = pdk.metadata(handle, "envoy.filters.http.rbac", config.result)
  if not result then
    error("the filter for the regular expressions of origins has no result")
  end
  return result == "allowed"
end

-- What a client with this origin may be told: a value of Access-Control-Allow-Origin, if any, whether to allow
-- credentials, and whether the answer depends on the origin.
local function decide(handle, origin)
  if config.all then
    if config.credentials and origin and parse(origin) then
      return { origin = origin, credentials = true, vary = true }
    end
    return { origin = "*", vary = config.credentials }
  end
  local verdict = { credentials = config.credentials, vary = true }
  if config.single then
    verdict.origin = config.single
  elseif origin then
    local normal = parse(origin)
    local plain = normal or origin:lower()
    if config.plain[plain] then
      verdict.origin = plain
    elseif normal and config.result and expression_matched(handle) then
      verdict.origin = normal
    end
  end
  return verdict
end

local function is_preflight(handle, present)
  return present
    and pdk.header(handle, ":method") == "OPTIONS"
    and pdk.header(handle, "access-control-request-method") ~= nil
end

local function answer_preflight(handle, verdict)
  local headers = { vary = verdict.vary and "Origin" or nil }
  if verdict.origin then
    local asked = concat(pdk.headers(handle, "access-control-request-headers"), ",")
    headers["access-control-allow-origin"] = verdict.origin
    headers["access-control-allow-credentials"] = verdict.credentials and "true" or nil
    headers["access-control-allow-headers"] = config.headers or asked ~= "" and asked or nil
    headers["access-control-allow-methods"] = config.methods
    headers["access-control-max-age"] = config.max_age
    if config.private_network and pdk.header(handle, "access-control-request-private-network") == "true" then
      headers["access-control-allow-private-network"] = "true"
    end
  end
  pdk.exit(handle, 200, headers)
end

local function request(handle)
  local origin, present = origin_of(handle)
  if is_preflight(handle, present) then
    pdk.save(handle, "preflight", true)
    if not config.preflight_continue then
      answer_preflight(handle, decide(handle, origin))
    end
    return
  end
  if present then
    pdk.save(handle, "verdict", decide(handle, origin))
  end
end

-- Adds Origin to Vary, unless the upstream has said so.
local function vary_by_origin(handle)
  for _, line in ipairs(pdk.headers(handle, "vary")) do
    for name in line:gmatch("[^,%s]+") do
      if name == "*" or name:lower() == "origin" then
        return
      end
    end
  end
  pdk.add_header(handle, "vary", "Origin")
end

local function response(handle)
  if pdk.saved(handle, "preflight") then
    return
  end
  local verdict = pdk.saved(handle, "verdict")
  if not verdict then
    -- No origin, or an earlier plugin has answered, so that it is not known.
    if not config.allow_origin_absent then
      return
    end
    verdict = decide(handle, nil)
  end
  if verdict.vary then
    vary_by_origin(handle)
  end
  if verdict.origin then
    pdk.set_header(handle, "access-control-allow-origin", verdict.origin)
  else
    pdk.remove_header(handle, "access-control-allow-origin")
  end
  if verdict.credentials then
    pdk.set_header(handle, "access-control-allow-credentials", "true")
  end
  if config.exposed_headers then
    pdk.set_header(handle, "access-control-expose-headers", config.exposed_headers)
  end
end

return { request = request, response = response }
