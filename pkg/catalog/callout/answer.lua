-- The service could not be asked: Envoy's answer has no body, and this one is JSON. Its status is not always the wanted one:
-- ext_authz of Envoy 1.37 has 403 for a service that answers 5xx. A gRPC answer is left as it is.

local config = ...

local function response(handle)
  local details = pdk.header(handle, config.header)
  if not details then
    return
  end
  pdk.remove_header(handle, config.header)
  if details:sub(1, #config.failure) == config.failure and not pdk.header(handle, "grpc-status") then
    pdk.fail(handle, config.status, config.message)
  end
end

return { response = response }
