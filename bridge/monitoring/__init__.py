"""What people and machines see of a bridge. It reads what the pipeline reports.

board.py               what was reported last
health.py              is all well, and if not, what to do: /health and /readyz
kept_files.py          instances of which the target kept another file than was sent
headline.py            the colour and the sentence at the top of the page, also while paused
throughput_history.py  what was delivered in the last hour, day and month, kept over restarts
time_left.py           how long the backlog will take
names.py               what people call this bridge and its servers
metrics.py             Prometheus: counters follow events, gauges are read from the board
logs.py                what the log says of each event
spans.py               what became of an instance as spans of OpenTelemetry
span_sender.py         sends them to a collector
server.py              the HTTP server
openapi.py             /openapi.json: what each address answers, for programs
own_tls.py             its certificate, read again when it is renewed, and the handshake
guard.py               keeps it from being harmed
poke.py                POST /poke: look at the feed sooner
actions.py             POST /api/actions/...: what a person with a token may have done
action_request.py      what such a request says, and whether another web page has sent it
side_command.py        runs a command beside the bridge for whoever has asked for it
guesses.py             slows who guesses a token
ask_running_bridge.py  asks a running bridge for its status, for commands beside it
page_files.py          the pages: page.html, page.studies.html, their scripts, page.css, page.svg
studies.py             what the page of studies shows, read from the ledger
"""
