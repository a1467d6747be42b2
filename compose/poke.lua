-- Tells orthanc-bridge that something has been stored: docs/poke.md. In Orthanc's configuration:
--   "LuaScripts" : [ "/etc/orthanc/poke.lua" ], "HttpTimeout" : 1,
--   "OrthancBridge" : { "PokeUrl" : "http://127.0.0.1:8080/poke", "PokeToken" : "..." }
local bridge, silent_until = GetOrthancConfiguration()['OrthancBridge'], 0
if SetHttpTimeout then SetHttpTimeout(1) end -- in Orthanc 1.11.1 and newer, for this script alone
function OnStoredInstance(instanceId, tags, metadata, origin)
  if os.time() < silent_until then return end
  local token = { ['Authorization'] = 'Bearer ' .. bridge['PokeToken'] }
  local poked = HttpPost(bridge['PokeUrl'], '', token) == 'ok\n'
  silent_until = os.time() + (poked and 1 or 60) -- storing waits meanwhile, so never in vain
end
