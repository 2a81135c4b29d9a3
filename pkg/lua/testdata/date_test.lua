-- The examples of RFC 9110 §5.6.7, the ends of months and years, and what is no date.
local check = dofile("testdata/check.lua")
local date = check.load("date").date

for text, want in pairs({
  ["Sun, 06 Nov 1994 08:49:37 GMT"] = 784111777,
  ["Sunday, 06-Nov-94 08:49:37 GMT"] = 784111777,
  ["Sun Nov  6 08:49:37 1994"] = 784111777,
  ["Wed Nov 16 08:49:37 1994"] = 784975777,
  ["Thu, 01 Jan 1970 00:00:00 GMT"] = 0,
  ["Thu, 29 Feb 1996 23:59:59 GMT"] = 825638399,
  ["Tue, 29 Feb 2000 00:00:00 GMT"] = 951782400,
  ["Wed, 01 Mar 2000 00:00:00 GMT"] = 951868800,
  ["Sun, 31 Dec 2000 23:59:60 GMT"] = 978307200,
  ["Mon, 01 Mar 2100 00:00:00 GMT"] = 4107542400,
  ["Mon, 31 Dec 2035 12:00:00 GMT"] = 2082715200,
}) do
  check.equal(date(text), want, text)
end

-- Every day of 60 years against the C library's calendar.
for day = 0, 60 * 365 do
  local want = day * 86400 + 3661
  local text = os.date("!%a, %d %b %Y %H:%M:%S GMT", want)
  if date(text) ~= want then
    check.equal(date(text), want, text)
  end
end

for _, bad in ipairs({
  "", "now", "784111777", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 1994 08:49:37 UTC", "Sun, 06 Nov 1994 08:49:37 +0000",
  "Sun, 6 Nov 1994 08:49:37 GMT", "Sun, 06 nov 1994 08:49:37 GMT", "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 00 Nov 1994 08:49:37 GMT",
  "Sun, 31 Nov 1994 08:49:37 GMT", "Mon, 29 Feb 2100 00:00:00 GMT", "Sun, 06 Nov 1994 24:00:00 GMT", "Sun, 06 Nov 1994 00:60:00 GMT",
  "Sun, 06 Nov 1994 00:00:61 GMT", "Foo, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1969 08:49:37 GMT", " Sun, 06 Nov 1994 08:49:37 GMT",
  "Sun, 06 Nov 1994 08:49:37 GMT ", "1994-11-06T08:49:37Z", "Sun, 06 Nov 1994 08:49:37 GMT\n",
}) do
  check.equal(date(bad), nil, string.format("%q", bad))
end
check.equal(date(nil), nil, "nil")
check.equal(date(784111777), nil, "a number")
check.finish()
