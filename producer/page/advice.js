// What to do about a job that failed, by its code: one entry for every code of producer/errors.py.

const SENDER = "Check the address in a browser.";
const LATER = "It was tried several times. Try again in a few minutes.";
const OPERATOR = "Ask whoever runs this service.";

export const ADVICE = {
  url_invalid: ["Write the address in full, as in https://host/image.jpg, with no user name in it.",
    "Other ports than 80 and 443 have to be allowed by the operator (FETCH_ALLOW)."],
  url_blocked: ["The address leads to a private network. Put the image where anybody can fetch it, or upload it here.",
    "captionq-worker check-url says which rule it meets; the operator can allow a network (FETCH_ALLOW)."],
  tls_failed: ["The host's certificate is expired, self-signed or another's. Renew it, or upload the image here."],
  http_4xx: [SENDER, "If it needs a login or a referrer, upload the image here instead; if it was moved, use the new address."],
  http_5xx: ["The image's host is failing, or asks to be left alone for a while.", LATER],
  redirect_limit: ["Use the address that the redirects end at. Redirects from https to http are not followed."],
  dns_failed: ["Check the host's name for typing errors.", LATER],
  connect_failed: ["The host does not answer. Check that it is up.", LATER],
  fetch_timeout: ["The host is too slow. Put the image on a faster one, make it smaller, or upload it here.", LATER],
  body_too_large: ["Make the file smaller: save it as JPEG, or scale it to 2,000 pixels. The model sees no more.",
    "The operator can raise the limit (MAX_BYTES)."],
  body_incomplete: ["The host broke the connection.", LATER],
  encoding_unsupported: ["Have the host send the image as it is, or with gzip."],
  s3_not_found: ["Check bucket, key and version. Keys with special letters are percent-encoded in the URI."],
  s3_denied: ["Give the worker's credentials s3:GetObject on the object."],
  s3_unavailable: ["S3 could not be reached from the worker.", LATER],
  bucket_not_allowed: ["Use a bucket that is on the list, or have the operator add this one (S3_ALLOW)."],
  file_not_found: ["Check the path: it has to be there on the worker's machine, below its FILE_ROOT."],
  file_not_allowed: ["Move the file below the worker's FILE_ROOT; links that lead out of it are not followed."],
  source_opted_out: ["The host says noai (X-Robots-Tag). Ask its owner, or use another image."],
  image_empty: ["The file has no bytes. Save or upload it again."],
  image_unsupported_format: ["Save it as JPEG, PNG or WebP. GIF and BMP do as well; AVIF and HEIC where the operator has allowed them (IMAGE_FORMATS)."],
  image_too_large: ["Scale it down: to 4,000 pixels a side, say. The limits are MAX_PIXELS and MAX_SIDE of the workers."],
  image_too_complex: ["Save it again, as a plain JPEG with few scans or as PNG."],
  image_corrupt: ["The file is damaged or cut off. Open it, save it anew, and send that."],
  decode_timeout: ["Save it again as a plain JPEG or PNG, and smaller."],
  decode_crashed: ["Save it again as a plain JPEG or PNG. If that fails as well, please report the image."],
  job_invalid: ["The message says which field is at fault. Correct it and submit again."],
  schema_unsupported: ["The sender is newer than the workers: have the operator update them."],
  signature_invalid: ["Submit with the signing key that the workers know (SIGNING_KEYS)."],
  job_expired: ["Workers are busy, or away. Submit it again, with a later expires_at."],
  job_cancelled: ["It was cancelled before it was done. Submit it again if it is still wanted."],
  job_poisoned: ["Its worker died each time. Try another image; the operator finds it among the dead letters (captionq-worker dead)."],
  sink_not_allowed: ["Write to a folder or bucket that the workers may write to (SINK_ALLOW), or leave the sink out."],
  sink_unavailable: ["The place for results could not be written to.", LATER],
  language_unavailable: ["Choose a language from the list, or have the operator add a pack for it (PACKS)."],
  model_lacks_captioning: ["No worker here captions. Choose “Match texts”, or start a worker with a captioning model (CAPTION_MODEL)."],
  model_lacks_matching: ["No worker here matches. Choose “Caption it”, or start a worker with a matching model (MATCH_MODEL)."],
  out_of_memory: ["Ask for fewer captions or beams, or a lower resolution.", LATER],
  worker_overloaded: ["There is more to do than the workers can.", LATER],
  device_lost: ["The worker's device failed; it starts again by itself.", LATER],
  internal_error: ["The fault is in the worker's log, under the job's id.", OPERATOR],
};

export const adviceFor = (code) => ADVICE[code] || [OPERATOR];
