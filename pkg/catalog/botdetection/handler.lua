-- Answers for the rbac filter in front of this chunk, which has judged the agent but never refuses by itself.

local config = ...

local function request(handle)
  local result = pdk.metadata(handle, "envoy.filters.http.rbac", config.result)
  if result == "denied" then
    pdk.fail(handle, 403, "Forbidden", { request_id = true })
  elseif result ~= "allowed" then
    error("the agent was not judged") -- never let pass what nobody looked at
  end
end

return { request = request }
