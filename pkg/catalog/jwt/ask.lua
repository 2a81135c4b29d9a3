-- jwt, of issuers: finds the token and hands it to the jwt_authn filter behind this chunk, in a header of ours. So tokens
-- are found by the same rules whoever verifies them.

local config = ...

local find, refuse = token.finder(config), token.refuser(config)

-- Three parts of base64url and nothing else: Envoy would cut off what no token can have, and overlook empty parts.
local PARTS = "^([%w%-_]+)%.[%w%-_]+%.([%w%-_]+)$"
local FORM = "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"

-- How long a signature with an elliptic curve is. Envoy overlooks bytes in front of its halves, and one behind.
local SIZES = { ES256 = 64, ES384 = 96, ES512 = 132 }

-- The sizes by the first part of tokens, which those of an issuer have in common; 0 for any.
local sizes = pdk.cache()

local function size_of(head)
  local size = sizes:get(head)
  if not size then
    local header = pdk.json.decode(pdk.base64.decode_url(head) or "")
    size = type(header) == "table" and SIZES[header.alg] or 0
    if #head <= 1024 then
      sizes:set(head, size)
    end
  end
  return size
end

-- What base64url may end with, by its length modulo 4: bits that belong to no byte are zero.
local LAST = { [0] = ".", [2] = "[AQgw]", [3] = "[AEIMQUYcgkosw048]" }

-- well_signed says whether a signature is the only spelling of what it is. Whether it is right is for Envoy to say.
local function well_signed(head, tail)
  local last, size = LAST[#tail % 4], size_of(head)
  return last ~= nil and tail:sub(-1):find(last) ~= nil and (size == 0 or math.floor(#tail * 3 / 4) == size)
end

local function check(handle)
  local text, several = find(handle)
  if not text then
    return nil, token.missing(several)
  elseif #text > token.LONGEST then
    return nil, token.invalid(FORM)
  end
  local head, tail = text:match(PARTS)
  if not head then
    return nil, token.invalid(FORM)
  elseif not well_signed(head, tail) then
    return nil, token.invalid("Jwt verification fails")
  end
  return text
end

-- Upstreams that make variables of headers, as CGI does, take x_claims for x-claims.
local function plain(name)
  return (name:gsub("%W", "-"))
end

-- The headers in which the upstream gets claims.
local is_payload = {}
for _, name in ipairs(config.payloads) do
  is_payload[plain(name)] = true
end

-- What a client sends under these names. Envoy removes only what is spelt in the same way.
local function remove_payloads(handle)
  if not next(is_payload) then
    return
  end
  local forged = {}
  for name in pairs(handle:headers()) do
    if name:find("^[^:]") and is_payload[plain(name)] then
      forged[#forged + 1] = name
    end
  end
  for _, name in ipairs(forged) do
    pdk.remove_header(handle, name)
  end
end

local function request(handle)
  pdk.clear_identity(handle)
  pdk.remove_header(handle, config.header) -- a client's
  if config.preflight == false and pdk.header(handle, ":method") == "OPTIONS" then
    remove_payloads(handle)
    return
  end
  local text, problem = check(handle)
  remove_payloads(handle) -- one may be where tokens are
  if text then
    pdk.set_header(handle, config.header, text)
  elseif not config.anonymous then
    refuse(handle, problem)
  end
end

return { request = request }
