# With the teacher's outgoing weights negated, all units i, j together, and d the difference of the output biases,
#     L = Σᵢⱼ (aᵢ·aⱼ) E[fᵢfⱼ] + 2 Σᵢ (aᵢ·d) E[fᵢ] + ‖d‖²,
# and every derivative is a sum over pairs of moments of fᵢ⁽ᵖ⁾fⱼ⁽ᵠ⁾.

"E[f⁽ᵖ⁾] for p up to 4, those beyond the second times r."
function single(p::Neuron, nodes::Nodes)
    expand!(p, nodes, 1)
    return p.A[1], p.B[1], p.C[1], p.C1[1], p.C2[1]
end

loss(net::InfiniteNet, θ) = data_loss(net, θ) + penalty(net.student.regulariser, θ)

function data_loss(net::InfiniteNet{T}, θ::Vector{T}) where {T}
    aim!(net, θ) || return T(NaN)
    fill!(net.g, 0)
    return T(add_loss!(net, 0))
end

"Loss; with `order` 1 its gradient is added to net.g."
function add_loss!(net::InfiniteNet, order::Int)
    hidden, last_layer = net.student.layers[1], net.student.layers[2]
    a, d, g, units, ws = net.outputs, net.offset, net.g, net.units, net.pairs
    k, D, O = hidden.width, hidden.fan_in, length(net.offset)
    L = net.target
    for i in 1:k
        heartbeat(net.monitor)
        for j in 1:length(units)
            i < j <= k && continue
            m = expectations!(ws, units[i], units[j], order)
            c = column_product(a, i, j)
            L += (i == j ? 1 : 2) * c * m.m00
            order == 0 && continue
            add_vector!(g, (i - 1) * D, 2c * m.x10, m.v1, 2c * m.y10, m.v2)
            hidden.bias && (g[bias_offset(hidden)+i] += 2c * m.m10)
            add_outputs!(g, last_layer, i, 2 * m.m00, a, j)
            j < i || continue
            add_vector!(g, (j - 1) * D, 2c * m.x01, m.v1, 2c * m.y01, m.v2)
            hidden.bias && (g[bias_offset(hidden)+j] += 2c * m.m01)
            add_outputs!(g, last_layer, j, 2 * m.m00, a, i)
        end
    end
    for o in 1:O
        L += d[o]^2
        order >= 1 && last_layer.bias && (g[bias_offset(last_layer)+o] += 2 * d[o])
    end
    last_layer.bias || any(!iszero, d) || return L
    for i in eachindex(units)
        c = column_dot_vector(a, i, d)
        e0, e1, e2, _, _ = single(units[i], ws.nodes)
        L += 2c * e0
        order == 0 && continue
        if last_layer.bias
            for o in 1:O
                g[bias_offset(last_layer)+o] += 2 * e0 * a[o, i]
            end
        end
        i <= k || continue
        add_vector!(g, (i - 1) * D, 2c * e2 * units[i].r, units[i].n, 0.0, units[i].n)
        hidden.bias && (g[bias_offset(hidden)+i] += 2c * e1)
        for o in 1:O
            g[last_layer.offset+(o-1)*k+i] += 2 * e0 * d[o]
        end
    end
    return L
end

@inline function add_vector!(g, offset, x, v1, y, v2)
    @inbounds @simd for d in eachindex(v1)
        g[offset+d] += x * v1[d] + y * v2[d]
    end
end

"Add c aⱼ to the part of g that belongs to the outgoing weights of unit i."
@inline function add_outputs!(g, l::Layer, i, c, a, j)
    @inbounds for o in 1:l.width
        g[l.offset+(o-1)*l.fan_in+i] += c * a[o, j]
    end
end

function column_dot_vector(a, i, d)
    s = zero(eltype(a))
    @inbounds for o in eachindex(d)
        s += a[o, i] * d[o]
    end
    return s
end

function value_and_gradient!(g::Vector{T}, net::InfiniteNet{T}, θ::Vector{T}) where {T}
    check_params(net, g)
    if !aim!(net, θ)
        fill!(g, NaN)
        return T(NaN)
    end
    fill!(net.g, 0)
    L = T(add_loss!(net, 1))
    @inbounds for i in eachindex(g)
        g[i] = net.factor[i] * net.g[i]
    end
    add_penalty_gradient!(g, net.student.regulariser, θ)
    return L + penalty(net.student.regulariser, θ)
end

function data_value_and_gradient(net::InfiniteNet{T}, θ::Vector{T}) where {T}
    g = similar(θ)
    value_and_gradient!(g, net, θ)
    return data_loss(net, θ), g - add_penalty_gradient!(zero(θ), net.student.regulariser, θ)
end
