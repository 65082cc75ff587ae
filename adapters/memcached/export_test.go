package memcached

var ItemKey = itemKey
