-- jwt, of issuers: finds the token and hands it to the jwt_authn filter behind this chunk, in a header of ours. So tokens
-- are found by the same rules whoever verifies them.

local config = ...

local find, refuse = token.finder(config), token.refuser(config)

-- Three parts of base64url and nothing else: Envoy would cut off what no token can have, and overlook empty parts.
local PARTS = "^[%w%-_]+%.[%w%-_]+%.[%w%-_]+$"
local FORM = "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"

local function check(handle)
  local text, several = find(handle)
  if not text then
    return nil, token.missing(several)
  elseif #text > token.LONGEST or not text:find(PARTS) then
    return nil, token.invalid(FORM)
  end
  return text
end

local function request(handle)
  pdk.clear_identity(handle)
  pdk.remove_header(handle, config.header) -- a client's
  if config.preflight == false and pdk.header(handle, ":method") == "OPTIONS" then
    return
  end
  local text, problem = check(handle)
  if text then
    pdk.set_header(handle, config.header, text)
  elseif not config.anonymous then
    refuse(handle, problem)
  end
end

return { request = request }
