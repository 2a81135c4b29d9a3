-- Answers for the rbac filter in front of this chunk, which has judged the address but never refuses by itself.

local config = ...

local NAMESPACE = "envoy.filters.http.rbac"

local function refuse(handle)
  local message = config.message or "IP address not allowed: " .. (pdk.client_ip(handle) or "unknown")
  pdk.fail(handle, config.status, message, {request_id = true})
end

local function request(handle)
  local result = pdk.metadata(handle, NAMESPACE, config.result)
  if result == "denied" then
    refuse(handle)
  elseif result ~= "allowed" then
    error("the address was not judged") -- never let pass what nobody looked at
  end
end

return {request = request}
