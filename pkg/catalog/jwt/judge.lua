-- jwt, of issuers: reads what the jwt_authn filter in front of this chunk found out. That filter lets every request pass
-- and notes the claims of a token that it has verified, or why it has not.

local config = ...

local NAMESPACE = "envoy.filters.http.jwt_authn"

-- What Envoy says of a token that is another issuer's, and where the keys of its issuer cannot be fetched.
local OTHER_ISSUER = "Jwt issuer is not configured"
local NOT_FETCHED = "Jwks remote fetch is failed"

-- Why no issuer's keys verify the token: what the one says whose token it is, if it is anyone's. Several may be of one name,
-- and a key that could not be fetched might have been the right one.
local function failure(handle)
  local message
  for _, note in ipairs(config.failures) do
    local failed = pdk.metadata(handle, NAMESPACE, note)
    if failed and (not message or message == OTHER_ISSUER or failed.message == NOT_FETCHED) then
      message = failed.message
    end
  end
  return message
end

-- Envoy allows for at least a second, and takes its own default for none.
local function untimely(claims)
  return token.timely(claims, "exp", config.skew) and "Jwt is expired"
    or token.timely(claims, "nbf", config.skew) and "Jwt not yet valid"
end

-- A consumer without a name, whom nobody but the token knows; or nil and a problem.
local function identify(handle)
  local asked = pdk.header(handle, config.header) ~= nil
  pdk.remove_header(handle, config.header)
  local claims = pdk.metadata(handle, NAMESPACE, config.claims)
  if claims then
    local problem = token.check_claims(config, claims)
    local late = not problem and untimely(claims)
    if problem or late then
      return nil, problem or token.invalid(late)
    end
    return {}
  end
  if not asked then
    return nil, token.MISSING
  end
  local message = failure(handle)
  if not message then
    error("the token was not judged") -- never let pass what nobody looked at
  elseif message == NOT_FETCHED then
    -- The token may be good, so clients must not throw it away, and who sent it is not anonymous.
    pdk.fail(handle, 503, "Keys of the token's issuer are not available")
  end
  return nil, token.invalid(message)
end

local judge = authn.request(config, "jwt", identify, token.refuser(config))

local function request(handle)
  judge(handle)
  pdk.remove_header(handle, config.header) -- also where nobody asked
end

return { request = request }
