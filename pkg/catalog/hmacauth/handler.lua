-- hmac-auth: a client signs some headers and the request line, and its signature is made again here.

local config = ...

local known = config.known

local NOT_VERIFIED = "HMAC signature cannot be verified"
local NO_DATE = NOT_VERIFIED .. ", a valid date or x-date header is required for HMAC Authentication"
local NO_MATCH = "HMAC signature does not match"

-- The digest of each algorithm that is accepted.
local digests = {}
for _, name in ipairs(config.algorithms) do
  digests[name] = name:match("^hmac%-(.*)$")
end

-- Where signatures are, in this order.
local HEADERS = { "proxy-authorization", "authorization" }

local IS_DATE = { date = true, ["x-date"] = true }

-- parse returns the parameters of a header of scheme hmac: name="value", in any order, each once. nil where it is of
-- another scheme, or one of the four that are needed is missing.
local function parse(value)
  local scheme, rest = value:match("^%s*(%a+)%s+(.*)$")
  if not scheme or scheme:lower() ~= "hmac" then
    return nil
  end
  local parameters, at = {}, 1
  repeat
    local name, text, behind = rest:match('^%s*(%a+)="([^"]*)"%s*()', at)
    if not name or parameters[name] then
      return nil
    end
    parameters[name] = text
    local separator = rest:sub(behind, behind)
    if separator ~= "," and separator ~= "" then
      return nil
    end
    at = behind + 1
  until separator == ""
  for _, name in ipairs({ "username", "algorithm", "headers", "signature" }) do
    if (parameters[name] or "") == "" then
      return nil
    end
  end
  return parameters
end

-- The parameters of a request and the header that has them; or nil, and whether there is such a header at all.
local function parameters_of(handle)
  local any = false
  for _, name in ipairs(HEADERS) do
    local value = pdk.header(handle, name)
    local parameters = value and parse(value)
    if parameters then
      return parameters, name
    end
    any = any or value ~= nil
  end
  return nil, any
end

-- The names of the headers that are signed, in order; nil where one is repeated, in whatever case, which would make a
-- long text of a short request.
local function signed_headers(parameters)
  local names, written, seen = {}, {}, {}
  for name in parameters.headers:gmatch("%S+") do
    local header = name:lower()
    if seen[header] then
      return nil
    end
    written[name], seen[header] = true, true
    names[#names + 1] = name
  end
  for _, name in ipairs(config.enforced) do
    if not written[name] then
      return nil
    end
  end
  return names
end

local function fresh(handle, name)
  local date = pdk.date(pdk.header(handle, name))
  return date ~= nil and math.abs(os.time() - date) <= config.skew
end

-- dated checks the date that counts: x-date, or else date.
local function dated(handle)
  return fresh(handle, pdk.header(handle, "x-date") and "x-date" or "date")
end

-- An old date that is signed is not made good by a new one beside it that is not.
local function dated_as_signed(handle, names)
  for _, name in ipairs(names) do
    name = name:lower()
    if IS_DATE[name] and pdk.header(handle, name) and not fresh(handle, name) then
      return false
    end
  end
  return true
end

-- HTTP/2 is written as HTTP/2.0, as Kong does.
local function protocol(handle)
  local name = handle:streamInfo():protocol()
  return name:find(".", 1, true) and name or name .. ".0"
end

-- One line of what is signed.
local function line(handle, name)
  local method, target = pdk.header(handle, ":method"), pdk.header(handle, ":path") or ""
  if name == "request-line" then
    return method .. " " .. target .. " " .. protocol(handle)
  elseif name == "@request-target" then
    return name .. ": " .. method:lower() .. " " .. target
  end
  local values = pdk.headers(handle, name)
  return name .. ":" .. (values[1] and " " .. table.concat(values, ",") or "")
end

local function matches(handle, parameters, names, secret)
  local lines = {}
  for i, name in ipairs(names) do
    lines[i] = line(handle, name)
  end
  local signature = pdk.base64.decode(parameters.signature)
  local expected = pdk.hmac(digests[parameters.algorithm], secret, table.concat(lines, "\n"))
  return signature ~= nil and pdk.equal(pdk.hex.encode(signature), expected)
end

local function too_large(handle)
  pdk.fail(handle, 413, "Request size limit exceeded", { request_id = true })
end

-- body_matches compares the body with the header Digest. What must not be held in memory, because the client may wait for
-- an answer before it has sent all, cannot be compared.
local function body_matches(handle)
  if pdk.is_grpc(handle) or pdk.header(handle, "upgrade") or pdk.header(handle, ":method") == "CONNECT" then
    return false
  end
  local digests_sent = pdk.headers(handle, "digest")
  if (tonumber(pdk.header(handle, "content-length")) or 0) > config.largest then
    too_large(handle)
  end
  local body = handle:body()
  local text = body and body:getBytes(0, body:length()) or ""
  if #text > config.largest then
    too_large(handle)
  end
  if not digests_sent[1] then
    return text == ""
  end
  local expected = "SHA-256=" .. pdk.base64.encode(pdk.hex.decode(pdk.sha256(text)))
  return pdk.equal(table.concat(digests_sent, ","), expected)
end

-- The consumer of the request and the username; or nil and what to tell the client.
local function identify(handle)
  local parameters, detail = parameters_of(handle)
  if not parameters and not detail then
    return nil, "Unauthorized"
  end
  if not dated(handle) then
    return nil, NO_DATE
  end
  local names = parameters and signed_headers(parameters)
  local credential = names and digests[parameters.algorithm] and known.credentials[parameters.username]
  if not credential then
    return nil, NOT_VERIFIED
  end
  if not dated_as_signed(handle, names) then
    return nil, NO_DATE
  end
  if not matches(handle, parameters, names, credential.secret) or config.largest and not body_matches(handle) then
    return nil, NO_MATCH
  end
  return known.consumers[credential.consumer], parameters.username
end

-- Envoy may have joined several headers by a comma.
local function has_signature(value)
  return value ~= nil and ("," .. value:lower() .. " "):find(",%s*hmac%s") ~= nil
end

-- Where no header counts, those of our scheme go: a signature may be good in a header that is not.
local function hide(handle)
  local parameters, used = parameters_of(handle)
  for _, name in ipairs(HEADERS) do
    if name == used or not parameters and has_signature(pdk.header(handle, name)) then
      pdk.remove_header(handle, name)
    end
  end
end

return { request = authn.request(config, "hmac-auth", identify, authn.unauthorized(config), config.hide and hide) }
