#!/bin/sh
# A stand-in for an agent: prints its arguments, pretends to work, and exits.
# If DEMO_SCRIPT is set, runs it instead of the pretended work.
# It fails without its folder and its task.
[ "$(pwd)" = /workspace ] && [ -n "$TASK_ID" ] || exit 9
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
