"""The target as the source's decoded image: verified again and again, and repaired.

judge_copy.py     what is to be said of one instance, once both servers were asked
verify.py         goes through both servers, and says it of each instance
repair.py         replaces a copy: proved first, then deleted, sent and proved; resumed after a kill
beside_copy.py    keeps what users have put beside a copy that is replaced, and puts it back
copy_deletion.py  deletes at the target what is deleted at the source, if the operator wishes it
carry_decision.py what becomes of one metadata or attachment that is carried
carry.py          brings labels, metadata and attachments to the target
carry_thread.py   does that beside the bridge, and knows what has changed
sign_decision.py  what becomes of the sign at the source that says delivered
delivered_sign.py sets it, and takes it away where another file has come
sign_thread.py    does that beside the bridge
beside_files.py   what carrying and signing share
beside_thread.py  a thread that does a part of its work again and again
mirror_thread.py  does it beside the bridge
told_instances.py what somebody has told of, until it is looked at
"""
