# The population loss in intervals, for pairs of units with closed forms: relu with relu, sigmoid2 and normal_cdf with
# each other, all without biases.

with_number_type(::Type{S}, net::InfiniteNet) where {S<:AbstractFloat} =
    InfiniteNet{S}(TeacherNet(with_number_type(S, net.teacher.net), S.(net.teacher.params)),
                   with_number_type(S, net.student))

function expectations!(ws::PairWorkspace{S}, p::Neuron{S}, q::Neuron{S}, order::Int) where {S<:Interval}
    u = p === q ? one(S) : direction_cosine(p.n, q.n)
    p.kind == rectified && q.kind == rectified && return rectified_pair!(ws.moments, p, q, u, order)
    p.kind == cumulative && q.kind == cumulative || throw(Unproved("on infinite data proofs need closed forms: relu " *
        "units in student and teacher, or sigmoid2 and normal_cdf"))
    sine = sqrt(max((1 - u) * (1 + u), zero(u)))                         # whose square is not negative
    return from_sums!(ws.moments, cumulative_pair!(ws.sums, p, q, u, sine, order), p, q, order)
end

single(p::Neuron{<:Interval}, nodes::Nodes) = throw(Unproved(NO_BIASES))
const NO_BIASES = "on infinite data proofs need closed forms, which there are for units and outputs without biases"

function added_by_correlation(h::S, k::S, ρ::S, s::S) where {S<:Interval}
    isfinite(h) && isfinite(k) || return entire(S)
    magnitude(h) == 0 && magnitude(k) == 0 || throw(Unproved(NO_BIASES))
    return asin(ρ) / (2 * S(pi))
end

Φ(x::Interval) = first(normal_cdf_pdf(x))
φ(x::Interval) = last(normal_cdf_pdf(x))

# A direction that may vanish is not known: what is divided by its norm tells.
negligible(s::Interval) = false
sees_nothing(s::Interval) = false
ratio(μ::Interval, s::Interval) = magnitude(μ) == 0 ? zero(μ) : μ / s
Base.hypot(x::Interval{T}, y::Interval{T}) where {T} = sqrt(x^2 + y^2)
