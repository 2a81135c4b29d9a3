-- The service could not be asked: Envoy's answer has no body, and this one is JSON. Its status is not always the wanted one:
-- ext_authz of Envoy 1.37 has 403 for a service that answers 5xx. A gRPC answer is left as it is.
--
-- Several of these may be in one chain, and what Envoy says does not tell which filter failed. It is the last one that was
-- asked, whose response function is the first.

local config = ...

local NAMESPACE = "istio-plugins.callout"

local function request(handle)
  pdk.set_metadata(handle, NAMESPACE, config.id, "asked")
end

local function is_failure(details)
  for _, failure in ipairs(config.failures) do
    if details:sub(1, #failure) == failure then
      return true
    end
  end
  return false
end

local function response(handle)
  local details = pdk.header(handle, config.header)
  if not details then
    return
  end
  pdk.remove_header(handle, config.header)
  if not is_failure(details) or pdk.header(handle, "grpc-status")
    or not pdk.metadata(handle, NAMESPACE, config.id) or pdk.metadata(handle, NAMESPACE, "answered") then
    return
  end
  pdk.set_metadata(handle, NAMESPACE, "answered", true)
  pdk.fail(handle, config.status, config.message)
end

return { request = request, response = response }
