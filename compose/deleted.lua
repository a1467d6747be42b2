-- Tells orthanc-bridge which instances were deleted here: docs/poke.md. In Orthanc's configuration:
--   "LuaScripts" : [ "/etc/orthanc/deleted.lua" ], "HttpTimeout" : 1,
--   "OrthancBridge" : { "PokeUrl" : "http://127.0.0.1:8080/poke", "PokeToken" : "..." }
-- A hint: the bridge looks for itself. What is not told is found by its next verification. The last
-- ones of a second may be told with the next deletion only: storing waits for Lua, so it is one
-- request a second, or one for 50 instances.
local bridge, waiting = GetOrthancConfiguration()['OrthancBridge'], {}
local told_at, silent_until, at_once, most = 0, 0, 50, 1000
if SetHttpTimeout then SetHttpTimeout(1) end -- in Orthanc 1.11.1 and newer, for this script alone

local function tell()
  if #waiting == 0 or os.time() < silent_until then return end
  local token = { ['Authorization'] = 'Bearer ' .. bridge['PokeToken'] }
  local named = table.concat(waiting, ',', 1, math.min(#waiting, at_once))
  told_at = os.time()
  if HttpPost(bridge['PokeUrl'] .. '?deleted=' .. named, '', token) ~= 'ok\n' then
    silent_until = os.time() + 60 -- everything in Lua waits meanwhile, so never in vain
    return
  end
  local left = {}
  for i = at_once + 1, #waiting do left[#left + 1] = waiting[i] end
  waiting = left
end

function OnDeletedInstance(instanceId)
  if #waiting < most then waiting[#waiting + 1] = instanceId end
  if #waiting >= at_once or os.time() > told_at then tell() end
end

function OnDeletedSeries(seriesId) tell() end -- the rest of a series, a study, a patient
function OnHeartBeat() tell() end -- newer versions, "LuaHeartBeatPeriod" : 1: the rest of all else
