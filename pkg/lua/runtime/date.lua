-- Dates of HTTP headers (RFC 9110 section 5.6.7).

local floor, match, time = math.floor, string.match, os.time

local MONTHS = {
  Jan = 1, Feb = 2, Mar = 3, Apr = 4, May = 5, Jun = 6, Jul = 7, Aug = 8, Sep = 9, Oct = 10, Nov = 11, Dec = 12,
}
local LENGTHS = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}

local function is_leap(year)
  return year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0)
end

-- days since 1970-01-01 in the Gregorian calendar.
local function days(year, month, day)
  local before = (year - 1970) * 365 + floor((year - 1969) / 4) - floor((year - 1901) / 100) + floor((year - 1601) / 400)
  for m = 1, month - 1 do
    before = before + LENGTHS[m]
  end
  return before + day - 1 + (month > 2 and is_leap(year) and 1 or 0)
end

local function seconds(year, month, day, hour, minute, second)
  year, month, day = tonumber(year), MONTHS[month], tonumber(day)
  hour, minute, second = tonumber(hour), tonumber(minute), tonumber(second)
  if not month or year < 1970 or day < 1 or day > LENGTHS[month] + (month == 2 and is_leap(year) and 1 or 0) then
    return nil
  elseif hour > 23 or minute > 59 or second > 60 then -- 60 is a leap second
    return nil
  end
  return days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second
end

-- full_year of two digits is the last such year that is not more than 50 years ahead.
local function full_year(digits)
  local now = tonumber(os.date("!%Y", time()))
  local year = now - now % 100 + digits
  return year > now + 50 and year - 100 or year
end

local NAMES = {
  Mon = true, Tue = true, Wed = true, Thu = true, Fri = true, Sat = true, Sun = true,
  Monday = true, Tuesday = true, Wednesday = true, Thursday = true, Friday = true, Saturday = true, Sunday = true,
}

local USUAL = "^(%a%a%a), (%d%d) (%a%a%a) (%d%d%d%d) (%d%d):(%d%d):(%d%d) GMT$"
local RFC850 = "^(%a+), (%d%d)%-(%a%a%a)%-(%d%d) (%d%d):(%d%d):(%d%d) GMT$"
local ASCTIME = "^(%a%a%a) (%a%a%a) ([ %d]%d) (%d%d):(%d%d):(%d%d) (%d%d%d%d)$"

-- parse reads the three forms that a date may have, and returns seconds since 1970, or nil.
return function(text)
  if type(text) ~= "string" then
    return nil
  end
  local name, day, month, year, hour, minute, second = match(text, USUAL)
  if not name then
    name, day, month, year, hour, minute, second = match(text, RFC850)
    year = name and full_year(tonumber(year))
  end
  if not name then
    name, month, day, hour, minute, second, year = match(text, ASCTIME)
  end
  if not NAMES[name or ""] then
    return nil
  end
  return seconds(year, month, day, hour, minute, second)
end
