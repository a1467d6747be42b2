_orthanc_bridge_completion() {
    local IFS=$'
'
    COMPREPLY=( $( env COMP_WORDS="${COMP_WORDS[*]}" \
                   COMP_CWORD=$COMP_CWORD \
                   _ORTHANC_BRIDGE_COMPLETE=complete_bash $1 ) )
    return 0
}

complete -o default -F _orthanc_bridge_completion orthanc-bridge
