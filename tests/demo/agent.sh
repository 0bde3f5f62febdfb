#!/bin/sh
# What stands in for a real agent in the demo: it says what it was given, «works», and ends as it is told.
# DEMO_SCRIPT, when set, is run in place of the work.
echo "agent started for task $TASK_ID"
echo "arguments: $*"
echo "working in $(pwd) as $(id -un) on $(uname -sm)"
if [ -n "$DEMO_SCRIPT" ]; then
    eval "$DEMO_SCRIPT"
    exit
fi
echo "watch the session at https://agents.example/session/$TASK_ID"
sleep 1
echo "prompt: ${DEMO_PROMPT:-none}"
sleep 1
echo "opened https://github.com/example/project/pull/42"
