-- basic-auth: what a password hashes to is looked up by the username.

local config = ...

local known = config.known

-- Hashed for a username that nobody has, so that the time an answer takes does not tell which ones exist.
local NOBODY = { salt = ("0"):rep(32), digest = ("0"):rep(64) }

-- The name and the only value of the header that counts; the value is nil where it is repeated.
local function credentials_header(handle)
  for _, name in ipairs({ "proxy-authorization", "authorization" }) do
    local values = pdk.headers(handle, name)
    if values[1] then
      return name, #values == 1 and values[1] or nil
    end
  end
end

-- What follows the scheme Basic, which may be written in any case; nil for another scheme.
local function basic(value)
  local scheme, rest = value:match("^%s*(%a+)%s+(%S+)%s*$")
  if scheme and scheme:lower() == "basic" then
    return rest
  end
end

-- Username and password; the name has no colon, the password may.
local function decode(encoded)
  local pair = #encoded <= config.longest and pdk.base64.decode(encoded)
  if pair then
    return pair:match("^([^:]+):(.*)$")
  end
end

-- The consumer of the request and the username; or nil.
local function identify(handle)
  local _, value = credentials_header(handle)
  local encoded = value and basic(value)
  if not encoded then
    return nil
  end
  local username, password = decode(encoded)
  if not username then
    return nil
  end
  local credential = known.credentials[username]
  local compared = credential or NOBODY
  local right = pdk.equal(pdk.sha256(compared.salt .. password), compared.digest)
  if credential and right then
    return known.consumers[credential.consumer], username
  end
end

local function refuse(handle)
  authn.unauthorized(config)(handle, "Unauthorized")
end

-- A token of another scheme is not ours to hide: another plugin or the upstream may want it. Envoy may have joined it with
-- credentials by a comma, and then both go.
local function hide(handle)
  local name = credentials_header(handle)
  for _, value in ipairs(name and pdk.headers(handle, name) or {}) do
    if ("," .. value:lower() .. " "):find(",%s*basic%s") then
      pdk.remove_header(handle, name)
      return
    end
  end
end

return { request = authn.request(config, "basic-auth", identify, refuse, config.hide and hide) }
