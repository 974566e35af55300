"Buffers for one pair at a time."
struct PairWorkspace{S}
    moments::Moments{S}
    sums::PairSums{S}
    shifted::Neuron{S}
    nodes::Nodes
    outer::Nodes
    inner::Nodes
    smoothed::Smoothed
    powers::Vector{Float64}
end
PairWorkspace{S}(D::Int) where {S} =
    PairWorkspace{S}(Moments{S}(D), PairSums{S}(), Neuron{S}(identity_, D), Nodes(), Nodes(), Nodes(), Smoothed(),
                     zeros(TERMS + 4))

"""
    expectations!(ws, p, q, order) -> ws.moments

All moments of a pair that the loss (`order` 0), its gradient (1) or Hessian (2) needs, by the rule that suits the pair:
a closed form, Mehler's formula where its rest is negligible, or quadrature in the plane of the two directions.
"""
function expectations!(ws::PairWorkspace{Float64}, p::Neuron, q::Neuron, order::Int)
    m, e = ws.moments, ws.sums
    if p.r == 0 || q.r == 0
        u = 0.0
    else
        u = p === q ? 1.0 : direction_cosine(p.n, q.n)
        p.kind == rectified && q.kind == rectified && return rectified_pair!(m, p, q, u, order)
        if p.kind == cumulative && q.kind == cumulative
            return from_sums!(m, cumulative_pair!(e, p, q, u, sqrt((1 - u) * (1 + u)), order), p, q, order)
        elseif p.kind == exponential
            return from_sums!(m, exponential_pair!(e, p, q, u, like!(ws.shifted, q), ws.nodes, order), p, q, order)
        elseif q.kind == exponential
            exponential_pair!(e, q, p, u, like!(ws.shifted, p), ws.nodes, order)
            return from_sums!(m, flip!(e), p, q, order)
        end
    end
    if p === q && p.r > 0 && p.kind == smooth && p.degree < 0
        expand!(p, ws.nodes, 1)                     # measures its sharpness
        return self_pair!(m, p, ws.outer)
    end
    stage = mehler_stage(p, q, u, ws.nodes)
    stage == 0 && return quadrature_pair!(m, p, q, u, ws.outer, ws.inner, ws.smoothed)
    return from_sums!(m, mehler!(e, p, q, u, order, ws.powers, STAGES[stage]), p, q, order)
end

function like!(scratch::Neuron, p::Neuron)
    scratch.activation, scratch.kind, scratch.kinks, scratch.jumps = p.activation, p.kind, p.kinks, p.jumps
    scratch.degree, scratch.gain, scratch.bandwidth, scratch.measured = p.degree, p.gain, p.bandwidth, p.bandwidth
    return scratch
end

function direction_cosine(n1, n2)
    u = zero(eltype(n1))
    @inbounds @simd for d in eachindex(n1)
        u = muladd(n1[d], n2[d], u)
    end
    return max(min(u, one(u)), -one(u))
end
