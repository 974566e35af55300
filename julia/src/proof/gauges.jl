# Symmetries of the loss move a critical point along a curve or surface of others. Where they are known exactly, as many
# parameters are held where they are as there are such directions: with directions t(x) at x and S the parameters held,
# ∇L·t = 0 everywhere, so that a point where all other derivatives vanish is critical if t(x) restricted to S is
# regular. The Hessian is zero along t at such a point, so that its index is that of the rows and columns of the others.

"Labels of invariances that hold exactly, and not at one point alone."
const GAUGES = ("scale of a unit", "offset of a derivative", "linear units", "softmax shift", "dead unit",
                "place of a step")

"Directions of an invariance at θ, exact for a θ of intervals."
function directions(e::Invariance, layers::Vector{Layer}, θ::Vector{T}) where {T}
    e.label in ("softmax shift", "dead unit", "place of a step") && return [T.(d) for d in e.directions]
    l = e.layer
    into, out = [incoming(layers[l], j) for j in e.units], [outgoing(layers[l+1], j) for j in e.units]
    e.label == "scale of a unit" && return [scale_direction(θ, layers[l], layers[l+1], e.units[1])]
    e.label == "offset of a derivative" && return [offset_direction(θ, layers[l], layers[l+1], e.units)]
    length(e.units) == 2 && return [mixing_direction(θ, into[1], into[2], out[1], out[2])]
    return [bias_direction(θ, layers[l], layers[l+1], e.units[1])]
end

"""
Hold parameters where they are, if that accounts for the null directions `N` (of all parameters), beside those that are
held already. With a constraint none are: what it leaves of a symmetry is no coordinate, in general; one parameter each
can be frozen, too.
"""
function fix_gauges!(proof::Proof, N::Matrix{Float64})
    unregularised(proof.coarse) && !(proof.coarse isa ConstrainedNet) || return false
    found, unexplained = explain(proof.coarse, proof.x, N)
    unexplained == 0 && all(e.label in GAUGES for (e, _) in found) || return false
    symmetries = [proof.symmetries; [e for (e, _) in found]]
    T = hcat((d for e in symmetries for d in directions(e, layers_in(proof.coarse), proof.x))...)
    F = qr(permutedims(T), Val(true))
    rank = count(r -> abs(r) > 1e-8 * abs(F.R[1]), diag(F.R))
    rank == length(fixed(proof)) + size(N, 2) || return false
    proof.free = setdiff(1:length(proof.x), F.p[1:rank])
    proof.symmetries = symmetries
    return true
end

fixed(proof::Proof) = setdiff(1:length(proof.x), proof.free)
gauges(proof::Proof) = Tuple{String,Int,Vector{Int}}[(e.label, e.layer, e.units) for e in proof.symmetries]

"""
    check_gauges(proof, box)

That the directions of the symmetries, restricted to the parameters that are held, are regular all over the box: with B
a left inverse at its middle, ‖I − B t‖_∞ < 1. That units are dead all over the box.
"""
function check_gauges(proof::Proof, box::Vector{Interval{Float64}})
    isempty(proof.symmetries) && return nothing
    net, held = proof.boxed, fixed(proof)
    T = hcat((d[held] for e in proof.symmetries for d in directions(e, layers_in(net), box))...)
    B = pinv(Float64[midpoint_radius(t)[1] for t in permutedims(T)])
    for i in 1:length(held)
        row = Interval(0.0, 0.0)
        for j in 1:length(held)
            row += abs(sum(Interval{Float64}[B[i, m] * T[j, m] for m in axes(T, 2)]) - (i == j))
        end
        row.hi < 1 || throw(Unproved("the directions of the symmetries are not known well enough"))
    end
    for e in proof.symmetries
        e.label == "dead unit" && !is_dead(net, box, e.layer, e.units[1]) &&
            throw(Unproved("unit $(e.units[1] - 1) of layer $(e.layer - 1) is flat here, but not in the whole box"))
    end
    return nothing
end

"Whether a unit and its slope are zero on every sample for all parameters in the box."
function is_dead(net::Net, box::Vector{Interval{Float64}}, l::Int, j::Int)
    ws = net.crew.workers[1].workspace
    for block in net.blocks
        forward!(ws, net, box, block, 1)
        for r in 1:block.n
            iszero(magnitude(ws.A[l][r, j])) && iszero(magnitude(ws.D[l][r, j])) || return false
        end
    end
    return true
end
