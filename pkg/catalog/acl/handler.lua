-- acl: lets the consumers of some groups pass, or all others.

local config = ...

local listed = {}
for _, group in ipairs(config.groups) do
  listed[group] = true
end

local function is_member(groups)
  for _, group in ipairs(groups) do
    if listed[group] then
      return true
    end
  end
  return false
end

local function request(handle)
  local consumer = pdk.consumer(handle)
  if not consumer or not consumer.id then
    pdk.fail(handle, 401, "Unauthorized", { request_id = true })
  end
  if is_member(consumer.groups) ~= config.allow then
    pdk.fail(handle, 403, "You cannot consume this service", { request_id = true })
  end
  -- Whatever a client or a plugin before has put there, the upstream gets the groups that were looked at.
  if config.hide or not consumer.groups[1] then
    pdk.remove_header(handle, "x-consumer-groups")
  else
    pdk.set_header(handle, "x-consumer-groups", table.concat(consumer.groups, ", "))
  end
end

return { request = request }
